"""Runs inside_joining.py and inside_busy.py, each in a network namespace of its own, where it makes four more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.root
@pytest.mark.parametrize("which", ["joining", "busy"])
def test_joining(which: str) -> None:
    inside = Path(__file__).with_name(f"inside_{which}.py")
    ran = subprocess.run(
        [
            *("unshare", "--net", "--mount", "--propagation", "private", "--"),
            *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(inside)),
        ],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
