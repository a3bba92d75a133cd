"""Runs inside_*.py in a network namespace of their own, where they make four more; the four validators grow only once.

The order matters: liars come last, since who has signed twice is out for good.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

INSIDE = ("validators", "extensions", "places", "faults", "linearizability", "liars")
LIMIT_S = 1_200
"""Idle, all of it takes less than five minutes."""


@pytest.mark.root
def test_four_validators() -> None:
    inside = [str(Path(__file__).with_name(f"inside_{each}.py")) for each in INSIDE]
    ran = subprocess.run(
        [
            *("unshare", "--net", "--mount", "--propagation", "private", "--"),
            *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--durations=20", *inside),
        ],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    print(ran.stdout)
    assert ran.returncode == 0, ran.stdout + ran.stderr
