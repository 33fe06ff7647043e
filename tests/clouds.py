"""Object stores on this machine: emulators from PyPI, and a line to them that can be cut."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass
class Line:
    """Passes on what goes to a server and back, and cuts a connection in the middle of what is sent.

    Attributes:
        port: Of this end.
        cut_after: Bytes that a connection may send before it is cut; None for no cut.
        cuts: How many may still be cut.
        cut: Bytes that each connection had sent when it was cut.
    """

    server: int
    port: int = 0
    cut_after: int | None = None
    cuts: int = 0
    cut: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.server))
            threading.Thread(target=self._pass, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, False), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, sent: bool) -> None:
        passed = 0
        with suppress(OSError):
            while content := source.recv(65536):
                passed += len(content)
                if sent and self.cuts and self.cut_after is not None and passed > self.cut_after:
                    self.cuts -= 1
                    self.cut.append(passed)
                    break
                target.sendall(content)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@dataclass(frozen=True)
class Cloud:
    """An object store with a bucket.

    Attributes:
        url: Of the bucket.
        line: To the emulator.
    """

    url: str
    line: Line


@pytest.fixture(scope="session")
def s3_server() -> Iterator[int]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield int(server.get_host_and_port()[1])
    server.stop()


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[int]:
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    yield int(server._api._httpd.server_address[1])
    server.stop()


@pytest.fixture(params=["s3", "gs"])
def cloud(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """An empty bucket of an emulator, which processes of this test find by their environment."""
    import fsspec

    s3 = request.param == "s3"
    line = Line(request.getfixturevalue("s3_server" if s3 else "gcs_server"))
    address = f"http://127.0.0.1:{line.port}"
    settings = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "STORAGE_EMULATOR_HOST": address,
        # gcsfs asks for the kind of a bucket by gRPC, which the emulator does not speak.
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    filesystem: Any = fsspec.filesystem(request.param)
    type(filesystem).clear_instance_cache()
    filesystem = fsspec.filesystem(request.param)
    bucket = f"bucket-{os.urandom(4).hex()}"
    filesystem.mkdir(bucket)
    yield Cloud(f"{request.param}://{bucket}", line)
    type(filesystem).clear_instance_cache()
    line.close()
