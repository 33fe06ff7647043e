"""What Hadoop's client configuration says: the default filesystem, and where the daemons listen."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

FOLDER_VARIABLE = "HADOOP_CONF_DIR"
DEFAULT_FILESYSTEM = "fs.defaultFS"
NAMENODE_PORT = 8020

_FILES = ("core-site.xml", "hdfs-site.xml", "yarn-site.xml")
_ADDRESS = re.compile(r"hdfs://(?P<host>[^/:]+)(:(?P<port>\d+))?(/.*)?", re.DOTALL)
_REFERENCE = re.compile(r"\$\{([^${}]+)\}")
_NESTED_REFERENCES = 20  # Hadoop's own limit


class HadoopConfigurationError(ValueError):
    """A Hadoop configuration cannot be read, or does not fit the storage root."""


def configuration_folder(environ: Mapping[str, str] = os.environ) -> str:
    """Where `core-site.xml` lies: `HADOOP_CONF_DIR`, else below `HADOOP_HOME`, else nothing."""
    home = environ.get("HADOOP_HOME")
    return environ.get(FOLDER_VARIABLE) or (f"{home}/etc/hadoop" if home else "")


def read_properties(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Read the properties of the configuration folder (and of the one that YARN_CONF_DIR names).

    Later files win over earlier ones, but not over a property marked final. `${name}` is replaced by another
    property and `${env.NAME}` by a variable; what is not known stays as written, as in Hadoop's own
    `Configuration` class. Hadoop's built-in defaults are not added.

    Args:
        environ: The environment that names the folders, by default this process's.

    Returns:
        Values by name; empty where no folder is named or it holds none of the files.

    Raises:
        HadoopConfigurationError: A file is no XML.

    Example:
        >>> read_properties({"HADOOP_CONF_DIR": "/etc/hadoop/conf"})["fs.defaultFS"]  # doctest: +SKIP
        'hdfs://namenode.example.org:8020'
    """
    named = (configuration_folder(environ), environ.get("YARN_CONF_DIR"))
    folders = [Path(folder) for folder in named if folder]
    properties: dict[str, str] = {}
    final: set[str] = set()
    for path in (folder / name for name in _FILES for folder in folders):
        for name, value, is_final in _read_file(path) if path.is_file() else ():
            if name not in final:
                properties[name] = value
            if is_final:
                final.add(name)
    return {name: _substitute(value, properties, environ) for name, value in properties.items()}


def default_filesystem(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the URL of the filesystem that `hdfs:///` means, or None where none is configured.

    Example:
        >>> default_filesystem({})  # no HADOOP_CONF_DIR
    """
    return read_properties(environ).get(DEFAULT_FILESYSTEM)


def namenode(url: str = "hdfs:///", environ: Mapping[str, str] = os.environ) -> str:
    """Return the NameNode that an `hdfs://` URL leads to: `host:port`, or the name of a service of several.

    Args:
        url: Where it names no host, the configuration's default filesystem counts.
        environ: The environment that names the configuration, by default this process's.

    Returns:
        Nothing where neither names one.

    Example:
        >>> namenode("hdfs://master/user/me", {})
        'master:8020'
    """
    properties = read_properties(environ)
    address = _ADDRESS.fullmatch(url) or _ADDRESS.fullmatch(properties.get(DEFAULT_FILESYSTEM, ""))
    if not address:
        return ""
    host, port = address["host"].lower(), address["port"]
    if not port and f"dfs.ha.namenodes.{address['host']}" in properties:
        return address["host"]
    return f"{host}:{port or NAMENODE_PORT}"


def namenode_addresses(url: str = "hdfs:///", environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return `host:port` of every NameNode behind an `hdfs://` URL: one, or several for high availability.

    Args:
        url: Where it names no host, the configuration's default filesystem counts.
        environ: The environment that names the configuration, by default this process's.

    Example:
        >>> namenode_addresses("hdfs://master/user/me", {})
        ['master:8020']
    """
    service, properties = namenode(url, environ), read_properties(environ)
    names = properties.get(f"dfs.ha.namenodes.{service}", "").split(",")
    several = [properties.get(f"dfs.namenode.rpc-address.{service}.{name.strip()}", "") for name in names]
    return [address for address in several if address] or [service]


def check_storage_root(root: str, environ: Mapping[str, str] = os.environ) -> None:
    """See that a storage root on HDFS lies on the configured default filesystem.

    Kedro and Spark take the NameNode from the configuration and not from a path; another host in the root
    would be passed over in silence.

    Args:
        root: Storage root; one that is not on HDFS is always right.
        environ: The environment that names the configuration, by default this process's.

    Raises:
        HadoopConfigurationError: No HDFS is configured, or the root names another one (both names are said).

    Example:
        >>> check_storage_root("data")
    """
    url = urlsplit(root)
    if url.scheme != "hdfs":
        return
    configured = default_filesystem(environ)
    if configured is None or not configured.startswith("hdfs://"):
        folder = configuration_folder(environ) or "not set"
        raise HadoopConfigurationError(
            f"The storage root {root} is on HDFS, but {FOLDER_VARIABLE} ({folder}) names "
            f"{configured or 'no default filesystem'}. Set it to the folder of your cluster's core-site.xml, "
            "or start a cluster here: `kedro cluster up`."
        )
    if url.netloc and namenode(root, environ) != namenode(configured, environ):
        raise HadoopConfigurationError(
            f"The storage root {root} is on hdfs://{url.netloc}, but the configuration in "
            f"{configuration_folder(environ)} has the default filesystem {configured}. Leave the host out "
            f"(hdfs://{url.path}), or set {FOLDER_VARIABLE} to the other cluster's configuration."
        )


def resourcemanager_addresses(properties: Mapping[str, str], service: str = "address") -> list[str]:
    """Return `host:port` of every YARN ResourceManager: one, or several for high availability.

    Args:
        properties: As `read_properties` returns them.
        service: "address" (where applications are submitted), "webapp.address" or "webapp.https.address".

    Example:
        >>> resourcemanager_addresses({"yarn.resourcemanager.hostname": "manager"})
        ['manager:8032']
    """
    port = {"address": 8032, "webapp.address": 8088, "webapp.https.address": 8090}[service]
    prefix = "yarn.resourcemanager"
    numbers = [f".{name.strip()}" for name in properties.get(f"{prefix}.ha.rm-ids", "").split(",") if name]
    addresses = []
    for number in numbers or [""]:
        host = properties.get(f"{prefix}.hostname{number}", "0.0.0.0")  # noqa: S104 - Hadoop's default
        addresses.append(properties.get(f"{prefix}.{service}{number}", f"{host}:{port}"))
    return addresses


def _read_file(path: Path) -> list[tuple[str, str, bool]]:
    """Name, value and whether it is final, of every property in a file."""
    try:
        root = ElementTree.parse(path).getroot()  # noqa: S314 - the user's own configuration
    except (ElementTree.ParseError, OSError) as error:
        raise HadoopConfigurationError(
            f"{path} cannot be read: {error}. Mend it, or name another folder in {FOLDER_VARIABLE}."
        ) from error
    return [
        (
            entry.findtext("name", "").strip(),
            entry.findtext("value", "").strip(),
            entry.findtext("final", "").strip() == "true",
        )
        for entry in root.iter("property")
    ]


def _substitute(value: str, properties: Mapping[str, str], environ: Mapping[str, str]) -> str:
    def resolve(match: re.Match[str]) -> str:
        name = match[1]
        found = environ.get(name[4:]) if name.startswith("env.") else properties.get(name)
        return match[0] if found is None else found

    for _ in range(_NESTED_REFERENCES):
        replaced = _REFERENCE.sub(resolve, value)
        if replaced == value:
            break
        value = replaced
    return value
