"""status of an Allocation, wholly computed: the ledger's grant, the node's report and what is waited for go in.

    Allocation + Grant | Verdict + Mapping -> status (a dict as the API takes it)

Four conditions, always all of them: Proven, Reserved, Programmed, Ready. Ready repeats the first obstacle's reason and
message, so that `kubectl get` and `kubectl wait` answer without a second look.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from hypermesh import quantities
from hypermesh.conditions import Condition, find, from_milliseconds, is_true, merge, timestamp
from hypermesh.resources import access_secret_name
from hypermesh_operator.objects import Allocation, Grant, Mapping

Status = dict[str, Any]
Level = Literal["True", "False", "Unknown"]

CHAIN_REPLACED: Final = "ChainReplaced"
PUBLISH_FAILED: Final = "PublishFailed"
TOKEN_KEY_CHANGED: Final = "TokenKeyChanged"  # noqa: S105 - a reason
PROOF_REASONS: Final = ("SpaceTicket", "StakeTicket", "WorkTicket", "TimeTicket", "TicketsMissing")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why the last attempt did not reach its goal. retry_s is when it is tried again, None when only an event helps."""

    reason: str
    message: str
    retry_s: float | None = None
    ledger_away: bool = False


@dataclass(frozen=True, slots=True)
class Names:
    """How asset and node of a grant are called in Kubernetes; empty when the ledger has not told yet."""

    asset: str
    node: str


def pending(allocation: Allocation, verdict: Verdict, now: datetime) -> Status:
    """Nothing is granted, yet or any more: that its chain was replaced stays to be read until it is granted again."""
    unproven = verdict.reason.startswith(PROOF_REASONS)
    status: Level = "Unknown" if verdict.ledger_away else "False"
    proven = Condition("Proven", "False", verdict.reason if unproven else "NotSubmitted", verdict.message)
    if not unproven:
        proven = Condition("Proven", status, "NotSubmitted", "The four proofs are checked when it is reserved.")
    blocked = Condition("Reserved", status, verdict.reason, verdict.message)
    before = find(allocation.status.get("conditions") or (), "Reserved")
    if before is not None and before["reason"] == CHAIN_REPLACED:
        blocked = Condition("Reserved", "False", CHAIN_REPLACED, before["message"])
    idle = Condition("Programmed", "False", "NotReserved", "The node acts on what the ledger reserved.")
    ready = Condition("Ready", "False", verdict.reason, verdict.message)
    return _status(allocation, {}, (proven, blocked, idle, ready), now)


def granted(
    allocation: Allocation, grant: Grant, names: Names, mapping: Mapping | None, trouble: Verdict | None, now: datetime
) -> Status:
    """The ledger holds it; the node may or may not have programmed it. trouble: what keeps us from publishing it."""
    at = f"block {grant.height}"
    proven = Condition("Proven", "True", "FourProofsChecked", f"The ledger checked all four tickets in {at}.")
    reserved = Condition("Reserved", "True", "Committed", f"The ledger holds it since {at}.")
    if mapping is not None and mapping.programmed:
        programmed = Condition("Programmed", "True", "ReadBack", f"Node {names.node} answers at the address.")
        use = f"Use [{grant.address}]:{grant.port} with the token in Secret {access_secret_name(allocation.name)}."
        ready = Condition("Ready", "True", "Usable", use)
    else:
        reason, message = _waiting_for_node(names, mapping)
        programmed = Condition("Programmed", "False", reason, message)
        ready = Condition("Ready", "False", reason, message)
    if trouble is not None:
        ready = Condition("Ready", "False", trouble.reason, trouble.message)
    return _status(allocation, _facts(allocation, grant, names), (proven, reserved, programmed, ready), now)


def _waiting_for_node(names: Names, mapping: Mapping | None) -> tuple[str, str]:
    if mapping is not None and mapping.reason:
        return mapping.reason, f"Node {names.node}: {mapping.message}"
    return "WaitingForNode", f"Waits for the agent of node {names.node} to program the address."


def ended(allocation: Allocation, grant: Grant | None, names: Names, now: datetime) -> Status:
    """It was granted once and the ledger holds it no more. The facts stay: they tell that it must not come back."""
    kept = _kept(allocation) if grant is None else {**_facts(allocation, grant, names), **_kept(allocation)}
    expires = kept.get("leaseExpirationTime", "")
    over = grant.expired if grant is not None else bool(expires) and datetime.fromisoformat(expires) <= now
    if over:
        reason, message = "LeaseExpired", f"The lease ended at {expires}. Delete this Allocation and apply a new one."
    else:
        reason = "Released"
        message = "The ledger holds it no more. Delete this Allocation and apply a new one."
    height = (kept.get("ledger") or {}).get("height", "?")
    said = (
        Condition("Proven", "True", "FourProofsChecked", f"The ledger checked all four tickets in block {height}."),
        *(Condition(kind, "False", reason, message) for kind in ("Reserved", "Programmed", "Ready")),
    )
    return _status(allocation, kept, said, now)


def releasing(allocation: Allocation, verdict: Verdict, give_up: datetime, now: datetime) -> Status:
    """It is being deleted, and the release is not committed yet; give_up is when we stop waiting."""
    until = timestamp(give_up)
    message = (
        f"Waits until {until} at the latest for the ledger to commit the release: {verdict.message} After that the "
        "Allocation goes, and the release follows when the ledger is back."
    )
    before = {item["type"]: item for item in allocation.status.get("conditions") or ()}
    said = [
        Condition(kind, before[kind]["status"], before[kind]["reason"], before[kind]["message"])
        for kind in ("Proven", "Reserved", "Programmed")
        if kind in before
    ]
    said.append(Condition("Ready", "False", "Releasing", message))
    return _status(allocation, _kept(allocation), said, now)


def _kept(allocation: Allocation) -> Status:
    return {key: value for key, value in allocation.status.items() if key not in ("conditions", "observedGeneration")}


def _facts(allocation: Allocation, grant: Grant, names: Names) -> Status:
    return {
        "accessSecretName": access_secret_name(allocation.name),
        "allocationID": grant.allocation_id.hex(),
        "assetName": names.asset,
        "granted": {allocation.spec.resource: quantities.render(allocation.spec.resource, grant.amount)},
        "leaseExpirationTime": timestamp(from_milliseconds(grant.expires_ms)),
        "ledger": {"chainID": grant.chain_id, "height": grant.height, "transactionHash": grant.tx_hash.hex()},
        "nodeName": names.node,
        "port": grant.port,
        "proxyAddress": grant.address,
    }


def _status(allocation: Allocation, facts: Status, said: Iterable[Condition], now: datetime) -> Status:
    conditions = merge(allocation.status.get("conditions") or (), said, allocation.generation, now)
    return {**facts, "observedGeneration": allocation.generation, "conditions": conditions}


def was_granted(allocation: Allocation) -> bool:
    """Whether status says that the ledger granted it at some time."""
    return bool((allocation.status.get("ledger") or {}).get("height"))


def lost(allocation: Allocation, chain_id: str, now: datetime) -> Status | None:
    """What stands when the chain that held it is gone, and another is there; None while that is not so.

    A lease that was over, or given back, stays so on every chain.
    """
    held = (allocation.status.get("ledger") or {}).get("chainID", chain_id)
    reserved = is_true(allocation.status.get("conditions") or (), "Reserved")
    expires = allocation.status.get("leaseExpirationTime", "")
    if held == chain_id or not reserved or not expires or datetime.fromisoformat(expires) <= now:
        return None
    text = (
        f"Chain {held} held it and is gone; the ledger is chain {chain_id} now. It is allocated anew, for a whole "
        "lease, as soon as an asset fits. What it stored is lost: write it again, or delete it if it is not wanted."
    )
    return pending(allocation, Verdict(CHAIN_REPLACED, text), now)


def tells_of_publishing(status: Status) -> bool:
    """Whether what stands there is trouble with Secret or ProxyMapping, not to be taken back unseen."""
    said = ready(status)
    return said is not None and said.reason in (PUBLISH_FAILED, TOKEN_KEY_CHANGED)


def ready(status: Status) -> Condition | None:
    """Condition Ready of a status, if it stands there."""
    found = find(status.get("conditions") or (), "Ready")
    return None if found is None else Condition("Ready", found["status"], found["reason"], found["message"])
