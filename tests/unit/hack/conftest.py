"""The build tools are programs, not installed packages: their folders go on the path for these tests."""

from __future__ import annotations

import sys
from pathlib import Path

HACK = Path(__file__).resolve().parents[3] / "hack"

for folder in ("", "cluster", "toolchain"):
    if str(HACK / folder) not in sys.path:
        sys.path.append(str(HACK / folder))
