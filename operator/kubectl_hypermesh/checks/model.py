"""What a check is and how a list of them runs (linkerd's pkg/healthcheck is the model)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hypermesh_clients.kube import Kube
from hypermesh_clients.kube_errors import KubeError

Verdict = Literal["ok", "warning", "failed"]


class CheckFailed(Exception):
    """The check's finding, as a sentence that says what is wrong and what to do."""


@dataclass(slots=True)
class Context:
    """The cluster, and what earlier checks fetched."""

    kube: Kube
    namespace: str
    found: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """`fatal` stops all later checks; `warning` never makes the command fail."""

    category: str
    description: str
    anchor: str
    run: Callable[[Context], Awaitable[None]]
    fatal: bool = False
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    check: Check
    verdict: Verdict
    message: str = ""


async def run_checks(checks: Sequence[Check], context: Context) -> list[Outcome]:
    """Runs in order until a fatal one fails."""
    outcomes: list[Outcome] = []
    for check in checks:
        try:
            await check.run(context)
        except (CheckFailed, KubeError) as error:
            outcomes.append(Outcome(check, "warning" if check.warning else "failed", str(error)))
            if check.fatal:
                break
        else:
            outcomes.append(Outcome(check, "ok"))
    return outcomes
