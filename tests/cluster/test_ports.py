"""Where daemons listen: the usual ports, and others where those are taken."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from brain_mri.cluster import ports
from brain_mri.cluster.options import ClusterOptions, OptionError
from brain_mri.cluster.ports import choose_addresses, is_free


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which something listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def free() -> int:
    """A port on which nothing listens, just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_usual_port_is_taken_where_it_is_free(
    monkeypatch: pytest.MonkeyPatch, free: int, taken: int
) -> None:
    monkeypatch.setattr(ports, "PREFERRED_PORTS", {"namenode": free, "namenode_http": taken})
    addresses = choose_addresses(ClusterOptions())
    assert addresses["namenode"] == f"127.0.0.1:{free}"
    assert addresses["namenode_http"] != f"127.0.0.1:{taken}"


def test_every_listener_gets_a_port_of_its_own_on_loopback() -> None:
    for yarn in (False, True):
        addresses = choose_addresses(ClusterOptions(yarn=yarn))
        found = [address.split(":")[1] for address in addresses.values()]
        assert len(set(found)) == len(found) == (22 if yarn else 17)
        assert all(address.startswith("127.0.0.") for address in addresses.values())
    assert addresses["nodemanager_1"].startswith("127.0.0.2:")
    assert addresses["nodemanager_2_http"].startswith("127.0.0.3:")


def test_what_was_asked_for_is_given_or_refused(free: int, taken: int) -> None:
    # The usual port of another listener may be asked for.
    addresses = choose_addresses(ClusterOptions(ports={"spark_master_http": free, "namenode": 0}))
    assert addresses["spark_master_http"] == f"127.0.0.1:{free}"
    assert addresses["namenode"] != "127.0.0.1:8020"
    with pytest.raises(OptionError, match=rf"--namenode-http-port is {taken}, where something listens"):
        choose_addresses(ClusterOptions(ports={"namenode_http": taken}))
    with pytest.raises(OptionError, match="--resourcemanager-http-port has no meaning without --yarn"):
        choose_addresses(ClusterOptions(ports={"resourcemanager_http": free}))


def test_an_address_that_the_machine_lacks_is_named() -> None:
    with pytest.raises(OptionError, match=r"This machine has no address 192\.0\.2\.1"):
        is_free("192.0.2.1", 8020)
