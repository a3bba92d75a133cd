"""hack/image is a program's folder, not an installed package: put it on the path for its tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "hack" / "image"))
