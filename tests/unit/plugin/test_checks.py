"""The check runner, its layout, and the runbook behind each anchor."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

from hypermesh_clients.kube import Kube
from kubectl_hypermesh.checks.model import Check, CheckFailed, Context, Outcome, run_checks
from kubectl_hypermesh.commands.check import DOCS, catalogue, render

ROOT = Path(__file__).parents[3]
CONTEXT = Context(cast(Kube, None), "ns")


def check(name: str, *, fails: bool = False, **kinds: Any) -> Check:
    async def run(context: Context) -> None:
        if fails:
            raise CheckFailed(f"{name} is broken: mend it")

    return Check("category", name, name, run, **kinds)


async def test_a_fatal_failure_stops_what_depends_on_it() -> None:
    outcomes = await run_checks([check("a"), check("b", fails=True, fatal=True), check("c")], CONTEXT)
    assert [(o.check.description, o.verdict) for o in outcomes] == [("a", "ok"), ("b", "failed")]


async def test_a_warning_does_not_fail() -> None:
    outcomes = await run_checks([check("a", fails=True, warning=True), check("b")], CONTEXT)
    assert [o.verdict for o in outcomes] == ["warning", "ok"]


def test_each_failure_is_followed_by_its_message_and_hint() -> None:
    text = render([Outcome(check("good"), "ok"), Outcome(check("bad"), "failed", "bad is broken: mend it")])
    assert "√ good" in text
    assert f"× bad\n    bad is broken: mend it\n    see {DOCS}#bad for hints" in text
    assert text.endswith("Status check results are ×")


def test_every_anchor_has_a_runbook_entry_and_none_is_left_over() -> None:
    headings = set(re.findall(r"^### (\S+)$", (ROOT / DOCS).read_text(), re.MULTILINE))
    anchors = {item.anchor for pre in (True, False) for item in catalogue(pre=pre)}
    assert anchors == headings
