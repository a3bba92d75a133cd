"""What goes into the image's build, and when its key changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from image_build import context

CHECKOUT = Path(__file__).resolve().parents[3]
RULES = context.parse_rules("# comment\n*\n!keep\n!deep\ndeep/*\n!deep/wanted\n**/*.pyc\n**/__pycache__\n")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("README.md", False),
        ("keep", True),
        ("keep/a/b.py", True),
        ("keep/a/b.pyc", False),
        ("keep/__pycache__/x", False),
        ("keepsake", False),
        ("deep/other", False),
        ("deep/wanted/file", True),
        ("deep/wanted/__pycache__/file.py", False),
    ],
)
def test_the_last_matching_rule_decides(path: str, expected: bool) -> None:
    assert context.included(path, RULES) is expected


def test_files_lists_only_what_is_let_in(tmp_path: Path) -> None:
    for name in ("keep/b.py", "keep/a.pyc", "deep/other/x", "deep/wanted/y", "secret/key", "top"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert list(context.files(tmp_path, RULES)) == ["deep/wanted/y", "keep/b.py"]


def test_our_own_rules_let_in_sources_and_nothing_made(tmp_path: Path) -> None:
    rules = context.parse_rules((CHECKOUT / ".dockerignore").read_text())
    wanted = ("pyproject.toml", "requirements.lock", "operator/hypermesh/falcon.py", "protos/hypermesh/v1/x.proto")
    unwanted = (".git/config", "build/image/hypermesh.tar", ".venv/bin/python", "tests/unit/x.py", "docs/a.md")
    made = ("operator/hypermesh/v1/ledger_pb2.py", "operator/hypermesh/__pycache__/a.pyc")
    assert all(context.included(path, rules) for path in wanted)
    assert not any(context.included(path, rules) for path in (*unwanted, *made))


def test_the_key_follows_content_name_mode_and_facts(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("1")
    keys = [context.key(tmp_path, ["a"], [])]
    assert context.key(tmp_path, ["a"], []) == keys[0]
    keys += [context.key(tmp_path, ["b"], []), context.key(tmp_path, ["a"], ["buildah"])]
    (tmp_path / "a").chmod(0o755)
    keys.append(context.key(tmp_path, ["a"], []))
    (tmp_path / "a").write_text("2")
    keys.append(context.key(tmp_path, ["a"], []))
    assert len(set(keys)) == len(keys)
