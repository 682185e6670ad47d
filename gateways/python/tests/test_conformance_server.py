"""The server for the tests of all gateways."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import SECRET

SERVER = Path(__file__).with_name("conformance_server.py")


@pytest.fixture
def server() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": str(SERVER.parents[1] / "src"),
        "EDGE_SESSION_SECRET": SECRET,
        "EDGE_SESSION_STORE": "memory:",
        "EDGE_SESSION_OPTIONS": '{"name":"sid","rolling":true,"cookie":{"path":"/in"}}',
    }
    process = subprocess.Popen(
        [sys.executable, str(SERVER), str(port)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(10)


def test_it_does_deeds(server: str) -> None:
    with httpx.Client(base_url=server) as client:

        def visit(*deeds: Any, path: str = "/in") -> Any:
            response = client.get(path, headers={"x-deeds": json.dumps(deeds)})
            assert response.status_code == 200
            return response.json()["data"]

        assert visit(["set", "a", 1], ["set", "b", {"é": [None]}], ["remove", "x"]) == {}
        assert visit(["remove", "a"], ["maxAge", 60000]) == {"a": 1, "b": {"é": [None]}}
        old = client.cookies["sid"]
        assert visit(["renew"], ["maxAge", None]) == {"b": {"é": [None]}}
        assert client.cookies["sid"] != old
        assert visit(["regenerate"], ["set", "c", 1.5]) == {"b": {"é": [None]}}
        assert visit(["destroy"]) == {"c": 1.5}
        assert "sid" not in client.cookies
        assert visit() == {}
        assert visit(path="/") is None
