"""Where the daemons of a cluster on this machine listen."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Mapping

from brain_mri.cluster.options import LOOPBACK, ClusterOptions, OptionError

PREFERRED_PORTS = {
    "namenode": 8020,
    "namenode_http": 9870,
    "spark_master": 7077,
    "spark_master_http": 8080,
    "resourcemanager_http": 8088,
}
"""Where people expect these, if the ports are free."""

# Below the ports that systems hand out to clients: a daemon that is started again finds its port still free.
_OTHER_PORTS = range(20000, 32000)


def listeners(options: ClusterOptions) -> dict[str, str]:
    """Every address that the daemons listen on, by its name: the host.

    A NodeManager has a host of its own because YARN tells its nodes apart by host.

    Example:
        >>> listeners(ClusterOptions(yarn=True))["nodemanager_2_http"]
        '127.0.0.3'
    """
    workers = range(1, options.workers + 1)
    hosts = dict.fromkeys(["namenode", "namenode_http"], LOOPBACK)
    for number in range(1, options.datanodes + 1):
        hosts |= dict.fromkeys([f"datanode_{number}{kind}" for kind in ("", "_http", "_ipc")], LOOPBACK)
    if not options.yarn:
        names = ["spark_master", *(f"worker_{number}" for number in workers)]
        return hosts | dict.fromkeys([name + kind for name in names for kind in ("", "_http")], LOOPBACK)
    kinds = ("", "_http", "_scheduler", "_tracker", "_admin")
    hosts |= dict.fromkeys([f"resourcemanager{kind}" for kind in kinds], LOOPBACK)
    for number in workers:
        names = [f"nodemanager_{number}{kind}" for kind in ("", "_http", "_localizer")]
        hosts |= dict.fromkeys(names, f"127.0.0.{number + 1}")
    return hosts


def choose_addresses(options: ClusterOptions) -> dict[str, str]:
    """Choose a port for every listener: the one asked for, the usual one if it is free, else any free one.

    Returns:
        Each as "host:port", by its name.

    Raises:
        OptionError: A port that was asked for is taken, or this machine lacks a loopback address.

    Example:
        >>> choose_addresses(ClusterOptions())["namenode"]  # doctest: +SKIP
        '127.0.0.1:8020'
    """
    check_ports(options)
    hosts = listeners(options)
    addresses: dict[str, str] = {}
    # What was asked for comes first, so that nothing else is given that port.
    for name in sorted(hosts, key=lambda name: not options.ports.get(name)):
        taken = {int(address.split(":")[1]) for address in addresses.values()}
        addresses[name] = f"{hosts[name]}:{_choose_port(name, hosts[name], options.ports, taken)}"
    return {name: addresses[name] for name in hosts}


def check_ports(options: ClusterOptions) -> None:
    """See that every port that was asked for has a listener.

    Raises:
        OptionError: One has none.
    """
    for name in options.ports.keys() - listeners(options).keys():
        raise OptionError(
            f"{port_option(name)} has no meaning {'with' if options.yarn else 'without'} --yarn."
        )


def port_option(name: str) -> str:
    """The command line option for the port of a listener: "--namenode-http-port" for "namenode_http"."""
    return f"--{name.replace('_', '-')}-port"


def _choose_port(name: str, host: str, asked: Mapping[str, int], taken: set[int]) -> int:
    wanted = asked.get(name, PREFERRED_PORTS.get(name))
    if wanted and wanted not in taken and is_free(host, wanted):
        return wanted
    if asked.get(name):
        raise OptionError(
            f"{port_option(name)} is {wanted}, where something listens already. Give another one, or 0 for "
            "any that is free."
        )
    for port in random.sample(_OTHER_PORTS, 200):
        if port not in taken and is_free(host, port):
            return port
    raise OptionError(f"No port was found free on {host} from {_OTHER_PORTS.start} to {_OTHER_PORTS.stop}.")


def is_free(host: str, port: int) -> bool:
    """Whether a daemon could listen there now.

    Raises:
        OptionError: This machine has no such address.
    """
    with socket.socket() as probe:
        # As Java does it: connections that were closed just now do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise OptionError(
                    f"This machine has no address {host}, which a NodeManager needs. On macOS, add it: "
                    f"sudo ifconfig lo0 alias {host}"
                ) from error
            return False  # taken, or not for this user
    return True
