"""Conditions keep the time of their last transition, and only transitions are news."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypermesh import conditions
from hypermesh.conditions import Condition

NOW = datetime(2026, 11, 22, 18, 0, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
READY, UNREADY = Condition("Ready", "True", "Usable", "Use it."), Condition("Ready", "False", "Waiting", "Soon.")


def test_time_changes_with_the_status_only() -> None:
    first = conditions.merge((), [UNREADY], 1, NOW)
    reworded = conditions.merge(first, [Condition("Ready", "False", "Other", "Later.")], 2, LATER)
    assert reworded[0]["lastTransitionTime"] == first[0]["lastTransitionTime"] == "2026-11-22T18:00:00Z"
    assert reworded[0]["observedGeneration"] == 2
    assert conditions.merge(reworded, [READY], 2, LATER)[0]["lastTransitionTime"] == "2026-11-22T18:05:00Z"


def test_what_is_not_wanted_is_left_out() -> None:
    present = conditions.merge((), [READY, Condition("Old", "True", "X")], 1, NOW)
    assert [item["type"] for item in conditions.merge(present, [READY], 1, NOW)] == ["Ready"]


def test_transitions_are_changes_of_status_or_of_the_reason_for_a_lack() -> None:
    present = conditions.merge((), [UNREADY], 1, NOW)
    assert conditions.transitions((), [UNREADY]) == [UNREADY]
    assert conditions.transitions(present, [UNREADY]) == []
    reworded = Condition("Ready", "False", "Waiting", "Other words.")
    assert conditions.transitions(present, [reworded]) == []
    assert conditions.transitions(present, [READY]) == [READY]
    other = Condition("Ready", "False", "Refused", "No.")
    assert conditions.transitions(present, [other]) == [other]


def test_times_are_utc() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=2)))
    assert conditions.timestamp(elsewhere) == "2026-11-22T18:00:00Z"
    assert conditions.from_milliseconds(int(NOW.timestamp() * 1000)) == NOW
