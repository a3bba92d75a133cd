"""Every command block of the README works as it stands, in the order a reader meets them."""

from __future__ import annotations

import re
import subprocess

from .support import ROOT, environment

END = "### end of block"


def blocks() -> list[str]:
    """The shell blocks of README.md, in order."""
    return re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def test_all_blocks_in_one_shell() -> None:
    found = blocks()
    assert len(found) >= 4
    script = "set -euo pipefail\n" + "".join(f"{block}\necho '{END} {i}'\n" for i, block in enumerate(found))
    done = subprocess.run(
        ["bash", "-c", script],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        env={key: value for key, value in environment().items() if key != "KUBECONFIG"},
        timeout=3600,
        check=False,
    )
    last = done.stdout.count(END)
    assert done.returncode == 0, f"block {last} failed:\n{found[last]}\n--- output ---\n{done.stdout[-6000:]}"
    assert "written through fd" in done.stdout
    for words in ("Proven", "Reserved", "Programmed", "Ready", "read back: hello from"):
        assert words in done.stdout, f"make demo does not show {words!r}"
