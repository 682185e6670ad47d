"""What a fork may copy, and what it must not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKERS = Path(__file__).with_name("forked_workers.py")


@pytest.mark.parametrize("set_up", ["component", "middleware", "visited", "at-work"])
def test_forked_workers_never_make_the_same_identifier(set_up: str) -> None:
    printed = subprocess.run(
        [sys.executable, str(WORKERS), set_up, "5000"],
        env={**os.environ, "PYTHONPATH": str(WORKERS.parents[1] / "src")},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    ).stdout
    identifiers = printed.split()
    expected = 10_001 if set_up == "visited" else 10_000
    assert (len(identifiers), len(set(identifiers))) == (expected, expected)
