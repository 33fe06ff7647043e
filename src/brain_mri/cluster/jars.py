"""The programs of the daemons: PySpark's own jars and a few published ones, fetched by their coordinates.

PySpark ships Hadoop's client and Apache Ivy, which resolves Maven coordinates. What a NameNode, DataNodes and
YARN need besides is published by Hadoop itself. No host name stands here: Ivy's own settings name where to
fetch from, and the user's may name a mirror. Every jar has its sha256 here and is used only if it agrees.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import re
import subprocess
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from brain_mri.cluster.connection import ClusterError
from brain_mri.spark.java import JavaHome, cache_folder

logger = logging.getLogger(__name__)

HADOOP_VERSION = "3.5.0"
FOLDER_VARIABLE = "BRAIN_MRI_JARS"
SETTINGS_VARIABLE = "BRAIN_MRI_IVY_SETTINGS"


class JarError(ClusterError):
    """A jar is missing, or is not the one that was published."""


@dataclass(frozen=True)
class Jar:
    """A published jar.

    Attributes:
        organisation, name, version, classifier: its coordinates.
        sha256: of its content, in hexadecimal digits.
    """

    organisation: str
    name: str
    version: str
    sha256: str
    classifier: str = ""

    @property
    def coordinates(self) -> str:
        """As Maven writes them, for example `org.apache.hadoop:hadoop-hdfs:3.5.0:tests`."""
        return ":".join(filter(None, (self.organisation, self.name, self.version, self.classifier)))

    @property
    def file_name(self) -> str:
        """As it is published, for example `hadoop-hdfs-3.5.0-tests.jar`."""
        return "-".join(filter(None, (self.name, self.version, self.classifier))) + ".jar"


WEB_PAGES = Jar(
    "org.apache.hadoop",
    "hadoop-hdfs",
    HADOOP_VERSION,
    "afcb2a1a357b531bde29197adfc9cac4ed8e1e46ee3cdb1385d0ecdd16a520b2",
    classifier="tests",
)
"""Only its folder `webapps` is used: the pages of NameNode and DataNodes, which no other jar has."""

HDFS_JARS = (
    Jar(
        "org.apache.hadoop",
        "hadoop-client-minicluster",
        HADOOP_VERSION,
        "06772d24529e59939915979b3edba204d367750ef7dc5120411f35221dd4818c",
    ),
)
# The ResourceManager makes a certificate authority of its own when it starts, so it needs all three.
YARN_JARS = (
    Jar(
        "org.bouncycastle",
        "bcprov-jdk18on",
        "1.82",
        "14cde2fdfaa8890480a8e5b67aceef0c90f96682c1e23c133bafdc9e0b3255ce",
    ),
    Jar(
        "org.bouncycastle",
        "bcpkix-jdk18on",
        "1.82",
        "bdc723e20834832ac6af136cb5b5ff05e43b71d4fa151cc6510d9212ee086e63",
    ),
    Jar(
        "org.bouncycastle",
        "bcutil-jdk18on",
        "1.82",
        "4420691958ad1c0ba275a6d6d8a6317adbdbdc9277055b6a72aa89c88cda8c7d",
    ),
)


def pyspark_folder() -> Path:
    """The folder of the installed PySpark, which is a Spark home too.

    Raises:
        JarError: PySpark is not installed.
    """
    specification = importlib.util.find_spec("pyspark")
    if specification is None or specification.origin is None:
        raise JarError("PySpark is not installed. Install the locked versions: make install")
    return Path(specification.origin).parent


def check_hadoop_version(pyspark: Path) -> None:
    """Compare the Hadoop of the daemons with that of the client in PySpark's jars.

    Raises:
        JarError: They differ, or PySpark has no Hadoop client.
    """
    found = [
        match.group(1)
        for path in (pyspark / "jars").glob("hadoop-client-api-*.jar")
        if (match := re.fullmatch(r"hadoop-client-api-(.+)\.jar", path.name))
    ]
    if found != [HADOOP_VERSION]:
        raise JarError(
            f"The daemons are of Hadoop {HADOOP_VERSION}, but the PySpark in {pyspark} brings the client of "
            f"{' and '.join(found) or 'none'}. They must be the same; install the locked ones: make install"
        )


def find_jars(
    jars: Sequence[Jar], java: JavaHome, pyspark: Path, environ: Mapping[str, str] = os.environ
) -> list[Path]:
    """Return where the jars lie on this machine; those that are nowhere yet are fetched.

    They are looked for in the folder that `BRAIN_MRI_JARS` names and in the user's cache folder, which all
    clones of the project share. Ivy fetches what is missing, with the settings that `BRAIN_MRI_IVY_SETTINGS`
    names, else with `~/.ivy2/ivysettings.xml`, else with its own.

    Args:
        jars: The jars wanted.
        java: Runs Ivy.
        pyspark: The folder of PySpark, which ships Ivy.
        environ: The environment to read.

    Returns:
        Their paths, in the order of `jars`. The sha256 of each was checked.

    Raises:
        JarError: A jar cannot be fetched, or one has another content than was published.

    Example:
        >>> find_jars(HDFS_JARS, find_java(), pyspark_folder())  # doctest: +SKIP
    """
    own = Path(environ[FOLDER_VARIABLE]).absolute() if environ.get(FOLDER_VARIABLE) else None
    cache = cache_folder(environ) / "jars"
    places = {jar: _find(jar, own, cache) for jar in jars}
    missing = [jar for jar, place in places.items() if place is None]
    if missing:
        _fetch(missing, java, pyspark, cache, environ)
    return [place or cache / jar.file_name for jar, place in places.items()]


def unpack_web_pages(jar: Path, folder: Path) -> None:
    """Unpack `webapps` from the jar that has it into a folder, which then stands first on the class path.

    Jetty would unpack the whole jar anew for each daemon that starts, and look through it for classes.
    """
    with zipfile.ZipFile(jar) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name.startswith("webapps/")])


def _find(jar: Jar, own: Path | None, cache: Path) -> Path | None:
    if own and (own / jar.file_name).is_file():
        _check(own / jar.file_name, jar)
        return own / jar.file_name
    cached = cache / jar.file_name
    if not cached.is_file():
        return None
    try:
        _check(cached, jar)
    except JarError as error:
        logger.warning("%s It is fetched again.", error)
        return None
    return cached


def _check(path: Path, jar: Jar) -> None:
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != jar.sha256:
        raise JarError(
            f"{path} is not {jar.coordinates} as it was published: expected sha256 {jar.sha256}, "
            f"found {found}."
        )


def _fetch(
    jars: Sequence[Jar], java: JavaHome, pyspark: Path, cache: Path, environ: Mapping[str, str]
) -> None:
    """Fetch jars beside, check them, and rename them into the cache."""
    logger.info("Fetching %s with Ivy into %s", ", ".join(jar.coordinates for jar in jars), cache)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".fetch-") as name:
            draft = Path(name)
            _run_ivy(jars, java, pyspark, draft, environ)
            for jar in jars:
                _check(draft / jar.file_name, jar)
            for jar in jars:
                (draft / jar.file_name).replace(cache / jar.file_name)
    except (OSError, subprocess.SubprocessError, JarError) as error:
        wanted = "\n".join(f"  {jar.coordinates}  sha256 {jar.sha256}" for jar in jars)
        raise JarError(
            f"These jars, which the daemons need, could not be fetched:\n{wanted}\n{error}\n"
            f"Without a network, put them into a folder and name it: {FOLDER_VARIABLE}=/path/to/jars. With a "
            f"mirror, name your Ivy settings: {SETTINGS_VARIABLE}=/path/to/ivysettings.xml. Behind a proxy: "
            'JAVA_TOOL_OPTIONS="-Dhttps.proxyHost=… -Dhttps.proxyPort=…". Java trusts the certificates '
            f"of its own store, not the machine's; it is {java.path} ({java.origin}). If your proxy signs "
            "with a certificate of your company, set JAVA_HOME to a Java that trusts it."
        ) from error


def _run_ivy(
    jars: Sequence[Jar], java: JavaHome, pyspark: Path, target: Path, environ: Mapping[str, str]
) -> None:
    """Let Ivy fetch jars into a folder.

    Raises:
        JarError: Ivy ended with an error; the message is what it wrote last.
    """
    # On its command line Ivy knows no classifiers, in a file it does.
    description = target / "ivy.xml"
    description.write_text(_ivy_file(jars), encoding="utf-8")
    settings = Path(environ.get(SETTINGS_VARIABLE) or Path.home() / ".ivy2" / "ivysettings.xml")
    if environ.get(SETTINGS_VARIABLE) and not settings.is_file():
        raise JarError(f"{SETTINGS_VARIABLE} names {settings}, which is no file.")
    command: list[str | Path] = [
        java.path / "bin" / "java",
        "-jar",
        next((pyspark / "jars").glob("ivy-*.jar")),
        *(("-settings", settings) if settings.is_file() else ()),
        *("-ivy", description),
        *("-cache", target / "cache"),
        *("-retrieve", target / "[artifact]-[revision](-[classifier]).[ext]"),
    ]
    answer = subprocess.run(  # noqa: S603 - the user's own Java
        command,
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        env=dict(environ),
        timeout=900,
        check=False,
    )
    if answer.returncode:
        lines = [line for line in (answer.stdout + answer.stderr).splitlines() if line.strip(". \t:")]
        raise JarError("Ivy ended with an error:\n  " + "\n  ".join(lines[-12:]))


def _ivy_file(jars: Sequence[Jar]) -> str:
    """The jars as the module description that Ivy reads."""
    dependencies = "\n".join(
        f"    <dependency org={quoteattr(jar.organisation)} name={quoteattr(jar.name)} "
        f'rev={quoteattr(jar.version)} transitive="false">\n'
        f'      <artifact name={quoteattr(jar.name)} type="jar" ext="jar"'
        + (f" extra:classifier={quoteattr(jar.classifier)}" if jar.classifier else "")
        + "/>\n    </dependency>"
        for jar in jars
    )
    return (
        '<ivy-module version="2.0" xmlns:extra="http://ant.apache.org/ivy/extra">\n'
        '  <info organisation="brain_mri" module="cluster"/>\n'
        f"  <dependencies>\n{dependencies}\n  </dependencies>\n"
        "</ivy-module>\n"
    )
