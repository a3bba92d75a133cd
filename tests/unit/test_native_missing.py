"""Without its compiled part hypermesh_native says what is missing and how to get it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import hypermesh_native


def test_the_remedy_is_told(tmp_path: Path) -> None:
    package = tmp_path / "hypermesh_native"
    package.mkdir()
    shutil.copy(hypermesh_native.__file__, package)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import hypermesh_native"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("ImportError: hypermesh_native's compiled part can't be loaded (")
    assert last.endswith("build it with `make native`")
