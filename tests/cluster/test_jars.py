"""Jars are found or fetched, and used only if they are those that were published."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from brain_mri.cluster import jars
from brain_mri.cluster.jars import Jar, JarError, check_hadoop_version, find_jars, pyspark_folder
from brain_mri.spark.java import JavaHome, find_java

NO_JAVA = JavaHome(Path("/nowhere"), "17", "a test")
CONTENT = b"a jar"
SAMPLE = Jar("org.example", "sample", "1.0", hashlib.sha256(CONTENT).hexdigest(), classifier="tests")


def environment(folder: Path, **variables: Path) -> dict[str, str]:
    values = {name: str(path) for name, path in variables.items()}
    return {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), **values}


def test_coordinates_and_file_name_are_mavens() -> None:
    assert SAMPLE.coordinates == "org.example:sample:1.0:tests"
    assert SAMPLE.file_name == "sample-1.0-tests.jar"


def test_the_daemons_hadoop_is_that_of_pysparks_client(tmp_path: Path) -> None:
    check_hadoop_version(pyspark_folder())
    (tmp_path / "jars").mkdir()
    with pytest.raises(JarError, match="brings the client of none"):
        check_hadoop_version(tmp_path)
    (tmp_path / "jars" / "hadoop-client-api-3.4.1.jar").touch()
    with pytest.raises(JarError, match=rf"Hadoop {jars.HADOOP_VERSION}, but .* the client of 3\.4\.1"):
        check_hadoop_version(tmp_path)


def test_a_users_own_jar_is_used_where_it_lies_if_it_is_the_published_one(tmp_path: Path) -> None:
    own = tmp_path / SAMPLE.file_name
    own.write_bytes(CONTENT)
    environ = environment(tmp_path, BRAIN_MRI_JARS=tmp_path)
    assert find_jars([SAMPLE], NO_JAVA, tmp_path, environ) == [own]
    own.write_bytes(b"another")
    found = hashlib.sha256(b"another").hexdigest()
    with pytest.raises(JarError, match=f"expected sha256 {SAMPLE.sha256}, found {found}"):
        find_jars([SAMPLE], NO_JAVA, tmp_path, environ)


def publish(folder: Path, content: bytes) -> Path:
    """Put the sample into a repository on this disk; returns the Ivy settings that name it."""
    published = folder / "repository" / "org.example" / "sample"
    published.mkdir(parents=True, exist_ok=True)
    (published / SAMPLE.file_name).write_bytes(content)
    pattern = (
        folder / "repository" / "[organisation]" / "[module]" / "[artifact]-[revision](-[classifier]).[ext]"
    )
    settings = folder / "ivysettings.xml"
    settings.write_text(
        '<ivysettings><settings defaultResolver="here"/><resolvers><filesystem name="here">'
        f'<artifact pattern="{pattern}"/></filesystem></resolvers></ivysettings>',
        encoding="utf-8",
    )
    return settings


@pytest.mark.cluster  # Ivy is a Java program
def test_a_missing_jar_is_fetched_once_by_the_users_ivy_settings(tmp_path: Path) -> None:
    environ = environment(tmp_path, BRAIN_MRI_IVY_SETTINGS=publish(tmp_path, CONTENT))
    cached = tmp_path / "cache" / "brain-mri" / "jars" / SAMPLE.file_name
    java, pyspark = find_java(), pyspark_folder()
    assert find_jars([SAMPLE], java, pyspark, environ) == [cached]
    assert cached.read_bytes() == CONTENT
    assert find_jars([SAMPLE], NO_JAVA, pyspark, environ) == [cached]  # Ivy is not asked again
    cached.write_bytes(b"damaged")
    find_jars([SAMPLE], java, pyspark, environ)
    assert cached.read_bytes() == CONTENT
    assert [path.name for path in cached.parent.iterdir()] == [SAMPLE.file_name]


@pytest.mark.cluster
def test_what_cannot_be_fetched_is_named_with_every_way_out(tmp_path: Path) -> None:
    settings = publish(tmp_path, b"not what was published")
    environ = environment(tmp_path, BRAIN_MRI_IVY_SETTINGS=settings)
    with pytest.raises(JarError) as caught:
        find_jars([SAMPLE], find_java(), pyspark_folder(), environ)
    message = str(caught.value)
    for words in (
        SAMPLE.coordinates,
        SAMPLE.sha256,
        "BRAIN_MRI_JARS=",
        "BRAIN_MRI_IVY_SETTINGS=",
        "JAVA_HOME",
    ):
        assert words in message
    assert "is not org.example:sample:1.0:tests as it was published" in message
    assert not (tmp_path / "cache" / "brain-mri" / "jars" / SAMPLE.file_name).exists()
    with pytest.raises(JarError, match="which is no file"):
        find_jars(
            [SAMPLE], find_java(), pyspark_folder(), {**environ, "BRAIN_MRI_IVY_SETTINGS": "/absent.xml"}
        )
