"""`kubectl hypermesh check`: before an install (`--pre`) and ever after; exit status 1 when something is wrong."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import time
from typing import Any

from kubectl_hypermesh.checks import installation, mesh, preflight
from kubectl_hypermesh.checks.model import Check, Context, Outcome, run_checks
from kubectl_hypermesh.options import Options
from kubectl_hypermesh.output import is_structured, structured

DOCS = "docs/runbooks/check.md"


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("check", parents=[common], help="pre-flight and health, each failure with a hint")
    parser.add_argument("--pre", action="store_true", help="only what an installation needs")
    parser.add_argument("--wait", type=_seconds, default=0.0, metavar="DURATION", help="keep trying that long, e.g. 2m")
    parser.set_defaults(run=run)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", text)
    if not match or not text:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 30s, 2m or 1m30s")
    return int(match[1] or 0) * 60.0 + int(match[2] or 0)


def catalogue(*, pre: bool) -> list[Check]:
    """All checks in order; later categories need the earlier ones."""
    return [*preflight.CHECKS] if pre else [*preflight.CONNECTION, *installation.CHECKS, *mesh.CHECKS]


def render(outcomes: list[Outcome]) -> str:
    """linkerd's layout: category, a line a check, hints under failures, one verdict."""
    lines: list[str] = []
    category = ""
    for outcome in outcomes:
        if outcome.check.category != category:
            category = outcome.check.category
            lines += [*([""] if lines else []), category, "-" * len(category)]
        sign = {"ok": "√", "warning": "‼", "failed": "×"}[outcome.verdict]
        lines.append(f"{sign} {outcome.check.description}")
        if outcome.verdict != "ok":
            lines.append(f"    {outcome.message}")
            lines.append(f"    see {DOCS}#{outcome.check.anchor} for hints")
    verdict = "×" if any(outcome.verdict == "failed" for outcome in outcomes) else "√"
    lines += ["", f"Status check results are {verdict}"]
    return "\n".join(lines)


async def run(options: Options, arguments: argparse.Namespace) -> int:
    deadline = time.monotonic() + arguments.wait
    shown = ""
    async with options.kube() as kube:
        while True:
            outcomes = await run_checks(catalogue(pre=arguments.pre), Context(kube, options.install_namespace))
            failed = [outcome for outcome in outcomes if outcome.verdict == "failed"]
            if not failed or time.monotonic() >= deadline:
                break
            waiting = f"waiting: {failed[0].check.description}: {failed[0].message}"
            if sys.stderr.isatty() and waiting != shown:
                print(waiting, file=sys.stderr)
                shown = waiting
            await asyncio.sleep(0.5)
    if is_structured(options.output):
        answer = {
            "success": not failed,
            "checks": [
                {
                    "category": outcome.check.category,
                    "description": outcome.check.description,
                    "result": outcome.verdict,
                    "message": outcome.message,
                    "hint": f"{DOCS}#{outcome.check.anchor}",
                }
                for outcome in outcomes
            ],
        }
        print(structured(answer, options.output))
    else:
        print(render(outcomes))
    return 1 if failed else 0
