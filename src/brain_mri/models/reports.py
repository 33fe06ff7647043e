"""How trials say what they have reached while they are trained, and hear whether to go on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, answer_challenge, deliver_challenge
from typing import Any


class ReportDesk:
    """Where trials say what they have reached, and hear whether to go on."""

    def __init__(self, listener: Listener, key: bytes, decide: Callable[[str, int, float], bool]) -> None:
        self._listener, self._key, self._decide, self._closed = listener, key, decide, False
        threading.Thread(target=self._accept, name="reports", daemon=True).start()

    def close(self) -> None:
        """Let nobody in any more."""
        self._closed = True
        with suppress(OSError):  # closing alone does not wake the thread that accepts
            socket.create_connection(self._listener.address, 5).close()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed:
            with suppress(OSError):
                connection = self._listener.accept()
                threading.Thread(target=self._hear, args=(connection,), daemon=True).start()

    def _hear(self, connection: Connection[Any, Any]) -> None:
        with suppress(EOFError, OSError, AuthenticationError), connection:
            deliver_challenge(connection, self._key)
            answer_challenge(connection, self._key)
            while True:
                connection.send(self._decide(*connection.recv()))


def open_report(address: tuple[str, int], key: bytes, name: str) -> Callable[[int, float], bool]:
    """The way from a trial to the desk: from an epoch and its metric to whether to go on."""
    connection = Client(address, authkey=key)

    def report(step: int, value: float) -> bool:
        connection.send((name, step, value))
        return bool(connection.recv())

    return report
