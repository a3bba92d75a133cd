"""Where the demo installs into: the image that the user names is the one the chart gets."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("image", ["example.org/team/hypermesh:1.2", "example.org:5000/hypermesh:20240101"])
def test_the_chart_takes_the_image_with_any_tag(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import demo_targets

    monkeypatch.setenv("IMAGE", image)
    values = demo_targets.make_target("current", 1, ROOT).helm_values()
    command = [str(ROOT / "build/bin/helm"), "template", "hypermesh", str(ROOT / "charts/hypermesh"), *values]
    done = subprocess.run(command, text=True, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert f"image: {image}\n" in done.stdout
