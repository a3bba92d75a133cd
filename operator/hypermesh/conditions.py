"""Conditions as metav1.Condition: what a controller wants to say, merged into what already stands there.

    wanted conditions + those in the object -> list for status.conditions (times kept where the status is unchanged)

`transitions` tells which of them changed status, because events and logs are for transitions only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

Status = Literal["True", "False", "Unknown"]
Conditions = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing to say. reason is CamelCase, message a sentence with the remedy when something is wrong."""

    type: str
    status: Status
    reason: str
    message: str = ""


def find(conditions: Conditions, kind: str) -> Mapping[str, Any] | None:
    """The condition of that type, if any."""
    return next((condition for condition in conditions if condition.get("type") == kind), None)


def is_true(conditions: Conditions, kind: str) -> bool:
    """Whether that condition stands and is True."""
    found = find(conditions, kind)
    return found is not None and found.get("status") == "True"


def merge(present: Conditions, wanted: Iterable[Condition], generation: int, now: datetime) -> list[dict[str, Any]]:
    """The new status.conditions: `wanted` in order; those present and not wanted are left out."""
    merged = []
    for condition in wanted:
        before = find(present, condition.type)
        kept = before is not None and before.get("status") == condition.status
        since = before["lastTransitionTime"] if before is not None and kept else timestamp(now)
        merged.append(
            {
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason,
                "message": condition.message,
                "lastTransitionTime": since,
                "observedGeneration": generation,
            }
        )
    return merged


def transitions(present: Conditions, wanted: Iterable[Condition]) -> list[Condition]:
    """Those of `wanted` whose status, or whose reason for not being True, differs from what stands there."""
    changed = []
    for condition in wanted:
        before = find(present, condition.type)
        same_status = before is not None and before.get("status") == condition.status
        same_reason = before is not None and before.get("reason") == condition.reason
        if not same_status or (condition.status != "True" and not same_reason):
            changed.append(condition)
    return changed


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as metav1.Time serializes."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_milliseconds(milliseconds: int) -> datetime:
    """A moment of the ledger's clock (Unix milliseconds)."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
