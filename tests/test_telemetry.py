"""Nothing about a user's work leaves the machine: a bare `kedro` command opens no connection."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def test_a_bare_kedro_command_sends_nothing(tmp_path: Path) -> None:
    silenced = {"KEDRO_DISABLE_TELEMETRY", "DO_NOT_TRACK", "NO_PROXY", "no_proxy", "GITHUB_REPOSITORY_OWNER"}
    environ = {name: value for name, value in os.environ.items() if name not in silenced}
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        environ |= {"HTTPS_PROXY": address, "https_proxy": address, "XDG_CONFIG_HOME": str(tmp_path)}
        command = [sys.executable, "-m", "kedro", "info"]
        answer = subprocess.run(
            command, cwd=REPOSITORY, env=environ, capture_output=True, text=True, check=False
        )
        assert answer.returncode == 0, answer.stderr
        assert "kedro_telemetry" in answer.stdout  # the plugin is there, and silent
        proxy.settimeout(0.1)
        try:
            proxy.accept()
        except TimeoutError:
            return
    raise AssertionError("kedro tried to reach a host")
