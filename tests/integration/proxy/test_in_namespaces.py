"""Runs the `inside_*.py` beside this file, each in a network and mount namespace of its own: the real kernel.

They are ordinary pytest files, only not collected here, because what they do to the kernel must stay in there. To look
at one by hand: `unshare --net --mount python -m pytest tests/integration/proxy/inside_kernel.py`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

INSIDE = sorted(path.name for path in Path(__file__).parent.glob("inside_*.py"))


@pytest.mark.root
@pytest.mark.parametrize("name", INSIDE)
def test_inside(name: str) -> None:
    ran = subprocess.run(
        [
            *("unshare", "--net", "--mount", "--propagation", "private", "--"),
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(Path(__file__).with_name(name))),
        ],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
