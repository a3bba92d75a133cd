"""`make help` tells of every target that is for people, of every benchmark, and of every variable."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "Makefile", *sorted((ROOT / "hack").glob("*.mk"))]
INNER = {"root", "kubeconform", "linearizable"}
"""Targets that only others use."""


def told() -> str:
    return subprocess.run(["make", "help"], cwd=ROOT, text=True, capture_output=True, check=True, timeout=60).stdout


def test_every_target_is_there() -> None:
    targets = {
        name
        for file in FILES
        for line in re.findall(r"^\.PHONY: (.+)$", file.read_text(), re.M)
        for name in line.split()
    }
    assert set(re.findall(r"^  ([a-z0-9%-]+) {2,}\S", told(), re.M)) == (targets - INNER) | {"bench-%"}


def test_every_benchmark_is_named() -> None:
    line = next(line for line in told().splitlines() if "bench-%" in line)
    assert re.findall(r"-(\w+)", line.split("One of them")[1]) == sorted(
        path.stem for path in (ROOT / "hack" / "bench").glob("[a-z]*.py")
    )


def test_every_variable_with_a_default_is_there_with_it() -> None:
    for file in FILES:
        for name, value in re.findall(r"^(\w+) \?= (.*)$", file.read_text(), re.M):
            if name != "CLUSTER_PYTHON":  # for the tests of the cluster itself
                assert f"  {name}={value} " in told()
    for name in ("IMAGE", "BASE", "HYPERMESH_CACHE", "HYPERMESH_CLUSTER_DIR"):
        assert f"  {name}=" in told()
