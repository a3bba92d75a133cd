"""Every command block of the README and the how-tos works as it stands, in the order a reader meets them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from .support import ROOT, environment, run

END = "### end of block"
HOW_TO = {
    "install.md": ("memory", "storage"),
    "share-a-machine.md": ("condition met",),
    "get-a-slice.md": ("mine for two hours", "no memory asset fits", "deleted"),
}
"""Page -> words that its commands print; in this order, after the README, which leaves a cluster with the chart."""
TENANT = "get-a-slice.md"
"""For somebody who may edit one namespace and nothing else."""


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


@pytest.fixture(scope="module")
def administrator() -> str:
    """Kubeconfig of who may do everything."""
    return run(["make", "-s", "kubeconfig"]).stdout.strip()


@pytest.fixture
def tenant(administrator: str, tmp_path: Path) -> str:
    """Kubeconfig of a ServiceAccount that is bound to role `edit` in namespace team-b, and to nothing more."""
    place = {"name": "tenant", "namespace": "team-b"}
    rbac = "rbac.authorization.k8s.io"
    objects = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-b"}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": place},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": place,
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "ServiceAccount", **place}],
        },
    ]
    everything = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    run(["kubectl", "apply", "-f", "-"], stdin=everything, KUBECONFIG=administrator)
    create = ["kubectl", "create", "token", "tenant", "--namespace", "team-b", "--duration=1h"]
    token = run(create, KUBECONFIG=administrator).stdout.strip()
    content = yaml.safe_load(Path(administrator).read_text())
    for user in content["users"]:
        user["user"] = {"token": token}
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(content))
    return str(file)


@pytest.mark.parametrize("page", HOW_TO)
def test_all_blocks_of_a_how_to(page: str, administrator: str, tenant: str) -> None:
    kubeconfig = tenant if page == TENANT else administrator
    printed = output(f"docs/how-to/{page}", KUBECONFIG=kubeconfig, IMAGE="docker.io/library/hypermesh:dev")
    for words in HOW_TO[page]:
        assert words in printed, f"{page} does not show {words!r}:\n{printed[-3000:]}"
