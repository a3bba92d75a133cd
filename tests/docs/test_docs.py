"""The documentation holds together: links lead somewhere, and it names nothing of one machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def anchors(page: Path) -> set[str]:
    """GitHub's anchors of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name}: {target}"
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_path_of_one_machine(page: Path) -> None:
    assert not re.search(r"(/work/|/root/|/home/\w+/)", page.read_text())


def test_make_targets_in_the_text_exist() -> None:
    makefiles = "\n".join(path.read_text() for path in [ROOT / "Makefile", *(ROOT / "hack").glob("*.mk")])
    targets = set(re.findall(r"^([a-z0-9-]+):", makefiles, re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"`make ([a-z0-9-]+)", page.read_text()):
            assert target in targets or target.startswith("bench-"), f"{page.name}: make {target}"


def test_files_in_the_text_exist() -> None:
    """What is named from the checkout's root; build/ is made by commands."""
    named = re.compile(r"`((?:hack|docs|operator|agents|charts|crds|samples|tests|protos)/[A-Za-z0-9_./-]*)`")
    for page in PAGES:
        for path in named.findall(page.read_text()):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_metrics_and_settings_in_the_text_exist() -> None:
    metrics = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    folders = [ROOT / name for name in ("agents", "operator", "hack", "charts")]
    sources = "".join(
        path.read_text() for folder in folders for path in folder.rglob("*") if path.suffix in {".py", ".yaml", ".tpl"}
    )
    for page in PAGES:
        text = page.read_text()
        for name in re.findall(r"`(hypermesh_(?:agent|operator|ledger|trustchain)_[a-z_]+)", text):
            assert f"`{name}`" in metrics, f"{page.name}: no metric {name}"
        for name in re.findall(r"`\$?(HYPERMESH_[A-Z_]+)", text):
            assert name in sources, f"{page.name}: no setting {name}"


def test_chart_values_in_the_text_exist() -> None:
    values = set(re.findall(r"^\| `([\w.]+)`", (ROOT / "docs" / "reference" / "values.md").read_text(), re.MULTILINE))
    groups = {value.split(".")[0] for value in values if "." in value}
    for page in PAGES:
        for name in re.findall(r"`(\w+(?:\.\w+)+)(?:=[^`]*)?`", page.read_text()):
            if name.split(".")[0] in groups:
                assert name in values, f"{page.name}: no value {name}"
