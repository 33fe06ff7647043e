"""Questions that processes of workers ask the driver, through a socket that asks for a key."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, answer_challenge, deliver_challenge
from typing import Any


class Desk:
    """Answers questions, each asker in a thread of its own, until it is closed.

    Args:
        listener: Where askers come in.
        key: That they must know; it is never sent.
        answers: What answers a question, by its name.
    """

    def __init__(self, listener: Listener, key: bytes, answers: Mapping[str, Callable[..., Any]]) -> None:
        self._listener, self._key, self._answers, self._closed = listener, key, answers, False
        threading.Thread(target=self._accept, name="desk", daemon=True).start()

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
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: Connection[Any, Any]) -> None:
        with suppress(EOFError, OSError, AuthenticationError), connection:
            deliver_challenge(connection, self._key)
            answer_challenge(connection, self._key)
            while True:
                question, *arguments = connection.recv()
                connection.send(self._answers[question](*arguments))


class Asker:
    """Asks a :class:`Desk`: ``asker("question", argument)``.

    Raises:
        AuthenticationError: The key is another one.
        ConnectionError: Nobody is there, or not any more.
    """

    def __init__(self, address: tuple[str, int], key: bytes) -> None:
        self._connection = Client(address, authkey=key)

    def __call__(self, *question: Any) -> Any:
        """The answer."""
        try:
            self._connection.send(question)
            return self._connection.recv()
        except (EOFError, OSError) as error:  # not all of them say that it is the connection
            raise ConnectionError(f"The driver does not answer any more: {error}") from error
