"""Every command block of the README and the how-tos works as it stands, in the order a reader meets them."""

from __future__ import annotations

import re
import subprocess

import pytest

from .support import ROOT, environment, run

END = "### end of block"
HOW_TO = {
    "install.md": ("memory", "storage"),
    "share-a-machine.md": ("condition met",),
    "get-a-slice.md": ("mine for two hours", "no memory asset fits", "deleted"),
}
"""Page -> words that its commands print; in this order, after the README, which leaves a cluster with the chart."""


def blocks(page: str) -> list[str]:
    """The shell blocks of a page, in order."""
    return re.findall(r"^```sh\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def output(page: str, **given: str) -> str:
    """What all blocks of a page print in one shell; AssertionError with the block that failed."""
    found = blocks(page)
    script = "set -euo pipefail\n" + "".join(f"{block}\necho '{END} {i}'\n" for i, block in enumerate(found))
    own = {key: value for key, value in environment().items() if key != "KUBECONFIG"}
    done = subprocess.run(
        ["bash", "-c", script],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        env=own | given,
        timeout=3600,
        check=False,
    )
    last = done.stdout.count(END)
    assert done.returncode == 0, f"{page}: block {last} failed:\n{found[last]}\n--- output ---\n{done.stdout[-6000:]}"
    assert last == len(found) > 0
    return done.stdout


def test_all_blocks_of_the_readme_in_one_shell() -> None:
    assert len(blocks("README.md")) >= 4
    printed = output("README.md")
    assert "written through fd" in printed
    for words in ("Proven", "Reserved", "Programmed", "Ready", "read back: hello from"):
        assert words in printed, f"make demo does not show {words!r}"


@pytest.mark.parametrize("page", HOW_TO)
def test_all_blocks_of_a_how_to(page: str) -> None:
    kubeconfig = run(["make", "-s", "kubeconfig"]).stdout.strip()
    printed = output(f"docs/how-to/{page}", KUBECONFIG=kubeconfig, IMAGE="docker.io/library/hypermesh:dev")
    for words in HOW_TO[page]:
        assert words in printed, f"{page} does not show {words!r}:\n{printed[-3000:]}"
