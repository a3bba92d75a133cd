"""What became of each mapping, and how its ProxyMapping says so. Pure.

Outcome + the ProxyMapping that the operator wrote -> status to patch, or None when it stands there already
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv6Address
from typing import Any, Final

from hypermesh import conditions
from hypermesh.conditions import Condition
from hypermesh.v1 import ledger_pb2

PROGRAMMED = "Programmed"
Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Observed:
    """The translation as read back from the kernel; address 16 bytes, times unix milliseconds."""

    target: bytes
    port: int
    expires_ms: int
    programmed_ms: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """address: the proxy address, 16 bytes; observed None: not programmed, for `reason`."""

    address: bytes
    port: int
    reason: str
    message: str
    observed: Observed | None = None


_ENFORCED: Final[Mapping[int, str]] = {
    ledger_pb2.ASSET_TYPE_MEMORY: "holds its memory in a control group of its own",
    ledger_pb2.ASSET_TYPE_STORAGE: "holds its blocks in the pool",
    ledger_pb2.ASSET_TYPE_CPU: "reserves its processor time in a control group of its own",
    ledger_pb2.ASSET_TYPE_GPU: "keeps it reserved (the ledger counts it; no driver enforces it)",
}


def programmed(address: bytes, port: int, type_: int, observed: Observed, node_name: str) -> Outcome:
    """The good end. type_: number of the AssetType."""
    source, target = IPv6Address(address), IPv6Address(observed.target)
    text = (
        f"node {node_name} verified the mapping, {_ENFORCED[type_]}, and translates [{source}]:{port} "
        f"to [{target}]:{observed.port}"
    )
    return Outcome(address, port, PROGRAMMED, text, observed)


def status_patch(mapping: Mapping[str, Any], outcome: Outcome, now: datetime) -> Object | None:
    """Body of a merge patch of /status; None when nothing would change."""
    spec, generation = mapping["spec"], int(mapping["metadata"].get("generation", 1))
    status = mapping.get("status") or {}
    present = status.get("conditions") or []
    wished = _condition(spec, outcome)
    merged = conditions.merge(present, [wished], generation, now)
    observed = None
    if wished.status == "True" and outcome.observed is not None:
        observed = {
            "targetAddress": str(IPv6Address(outcome.observed.target)),
            "targetPort": outcome.observed.port,
            "expirationTime": _time(outcome.observed.expires_ms),
            "programmedTime": _time(outcome.observed.programmed_ms),
        }
        before = status.get("observed") or {}
        if before.get("programmedTime") and {**before, "programmedTime": observed["programmedTime"]} == observed:
            observed["programmedTime"] = before["programmedTime"]
    wanted = {"conditions": merged, "observedGeneration": generation, "observed": observed}
    if all(status.get(key) == value for key, value in wanted.items()):
        return None
    return {"status": wanted}


def _condition(spec: Mapping[str, Any], outcome: Outcome) -> Condition:
    written, real = (str(spec["address"]), int(spec["port"])), (str(IPv6Address(outcome.address)), outcome.port)
    if (str(IPv6Address(written[0])), written[1]) != real:
        text = (
            f"the ProxyMapping says [{written[0]}]:{written[1]} but the ledger's record says [{real[0]}]:{real[1]}; "
            "delete the ProxyMapping and the operator writes it again"
        )
        return Condition(PROGRAMMED, "False", "MappingDiffers", text)
    return Condition(PROGRAMMED, "True" if outcome.observed else "False", outcome.reason, outcome.message)


def _time(milliseconds: int) -> str:
    return conditions.timestamp(conditions.from_milliseconds(milliseconds))
