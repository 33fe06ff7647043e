"""What daemons say of themselves, and what they do not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from brain_mri.cluster.readiness import AnswerError, ask, make_home, namenode_bean

ANSWERS = {
    "/json": (200, b'{"aliveworkers": 2}'),
    "/page": (200, b"<html>"),
    "/jmx?qry=Hadoop:service=NameNode,name=NameNodeInfo": (200, b'{"beans": []}'),
    "/webhdfs/v1/user/ada%20l?op=MKDIRS&user.name=root": (200, b'{"boolean": true}'),
}


class Daemon(BaseHTTPRequestHandler):
    """Answers as a daemon's web server does."""

    def do_GET(self) -> None:
        status, content = ANSWERS.get(self.path, (403, b"{}"))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(content)

    def do_PUT(self) -> None:
        self.do_GET()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Daemon) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_answer_is_read_past_any_proxy(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert ask(address, "/json") == {"aliveworkers": 2}
    make_home(address, "ada l", "root")


def test_what_is_no_answer_is_said_with_the_address(address: str) -> None:
    with pytest.raises(AnswerError, match=rf"{address} answers /absent with 403 Forbidden"):
        ask(address, "/absent")
    with pytest.raises(AnswerError, match=rf"{address} does not answer /page"):
        ask(address, "/page")
    with pytest.raises(AnswerError, match="has no NameNodeInfo yet"):
        namenode_bean(address, "NameNodeInfo")
    with pytest.raises(AnswerError, match=r"127\.0\.0\.1:9 does not answer /json: .*refused"):
        ask("127.0.0.1:9", "/json")
    with pytest.raises(AnswerError, match="403 Forbidden"):
        make_home(address, "eve", "root")
