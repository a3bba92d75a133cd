"""The network place in `kubectl hypermesh ledger proofs`: who measured the node, and how far away it can be at most.

PlaceRecord + seats -> bounds that still count -> one row each, and what holds although some validators may lie
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from hypermesh import places
from hypermesh.v1 import ledger_pb2, votes_pb2
from kubectl_hypermesh.output import table

SHOWS: Final = "the node's key answered a validator so fast"
LACKS: Final = "where it is, or that no helper near the validator had the node's word to answer"


def summarize(record: votes_pb2.PlaceRecord, seats: ledger_pb2.ValidatorsResponse, epoch: int) -> dict[str, Any] | None:
    """None when no bound counts."""
    active = [each for each in seats.validators if each.state == ledger_pb2.VALIDATOR_STATE_ACTIVE]
    names = {hashlib.sha256(each.consensus_key).digest()[:20]: each.subject for each in active}
    bounds = places.fresh(record, names, epoch)
    if not bounds:
        return None
    believed = places.believed_us(record, names, epoch)
    return {
        "placed": believed is not None,
        "believed": None if believed is None else _distance(believed),
        "bounds": [
            {"validator": names[each.validator], "epoch": each.epoch, **_distance(each.microseconds)} for each in bounds
        ],
        "shows": SHOWS,
        "doesNotShow": LACKS,
    }


def _distance(microseconds: int) -> dict[str, int]:
    return {"roundTripMicroseconds": microseconds, "farthestKilometres": places.farthest_km(microseconds)}


def render(found: dict[str, Any] | None) -> list[str]:
    """Lines; none when nothing was measured."""
    if found is None:
        return []
    rows = [
        [
            each["validator"],
            str(each["epoch"]),
            f"{each['roundTripMicroseconds'] / 1000:.1f} ms",
            f"{each['farthestKilometres']} km",
        ]
        for each in found["bounds"]
    ]
    verdict = "Not placed: too few validators have measured it lately"
    if found["believed"] is not None:
        distance = found["believed"]["farthestKilometres"]
        verdict = f"Placed: at most {distance} km from a validator, if fewer than a third of them lie"
    meaning = f"place   shows that {found['shows']}; not {found['doesNotShow']}"
    return ["", table(["MEASURED BY", "EPOCH", "ROUND TRIP", "AT MOST"], rows), verdict, meaning]
