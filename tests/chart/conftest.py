"""The rendered chart, once a session."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "hypermesh"
HELM = ROOT / "build" / "bin" / "helm"
NAMESPACE = "hypermesh-system"


def helm_template(*values: str) -> subprocess.CompletedProcess[str]:
    """`helm template` with --set values; not checked, for tests of refusals."""
    command = [str(HELM), "template", "hypermesh", str(CHART), "-n", NAMESPACE]
    for value in values:
        command += ["--set", value]
    return subprocess.run(command, text=True, capture_output=True, check=False, timeout=60)


@pytest.fixture(scope="session")
def rendered() -> list[dict[str, Any]]:
    """Every object of the chart with default values."""
    done = helm_template()
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]
