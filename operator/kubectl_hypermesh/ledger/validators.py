"""`kubectl hypermesh ledger validators`: who may sign blocks, who does, who waits, and who was caught lying."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from typing import Any

from hypermesh.v1 import ledger_pb2
from hypermesh_clients.ledger import LedgerClient, LedgerUnavailable
from hypermesh_ledger import keys
from kubectl_hypermesh.ledger.reach import reached
from kubectl_hypermesh.options import Options
from kubectl_hypermesh.output import is_structured, structured, table

FOUNDER = "(no seat: of the genesis)"


def add_parser(parts: Any, parents: list[argparse.ArgumentParser]) -> None:
    parser = parts.add_parser("validators", parents=parents, help="seats, power, presence, trust and evidence")
    parser.set_defaults(run=run)


def summarize(
    seats: ledger_pb2.ValidatorsResponse,
    standings: list[ledger_pb2.Standing],
    trust: Mapping[bytes, int],
) -> list[dict[str, Any]]:
    """One entry a seat, and one a key of the genesis that never asked for a seat. trust: by holder's key id."""
    seen = {each.address: each for each in standings}
    lies = {each.address: each for each in seats.evidence}
    listed = []
    for record in seats.validators:
        address = hashlib.sha256(record.consensus_key).digest()[:20]
        entry = {
            "name": record.subject,
            "address": address.hex(),
            "seat": record.seat.hex(),
            "holder": record.holder.hex(),
            "state": ledger_pb2.ValidatorState.Name(record.state).removeprefix("VALIDATOR_STATE_").capitalize(),
            "since": record.joined_height,
            "trustScore": trust.get(record.holder),
        }
        listed.append(entry | _presence(seen.pop(address, None)) | _evidence(lies.get(address)))
    for address, standing in seen.items():
        entry = {"name": FOUNDER, "address": address.hex(), "seat": None, "holder": None, "state": "Active"}
        listed.append(entry | {"since": 1, "trustScore": None} | _presence(standing) | _evidence(lies.get(address)))
    return sorted(listed, key=lambda entry: (-int(entry["power"]), str(entry["name"]), str(entry["address"])))


def _presence(standing: ledger_pb2.Standing | None) -> dict[str, Any]:
    if standing is None:
        return {"power": 0, "signedBlocks": None, "countedBlocks": None, "signedLast": None}
    return {
        "power": standing.power,
        "signedBlocks": standing.signed_blocks,
        "countedBlocks": standing.counted_blocks,
        "signedLast": standing.signed_last,
    }


def _evidence(lie: ledger_pb2.Evidence | None) -> dict[str, Any]:
    if lie is None:
        return {"evidence": None}
    kind = ledger_pb2.MisbehaviorKind.Name(lie.kind).removeprefix("MISBEHAVIOR_KIND_").replace("_", " ").lower()
    return {"evidence": {"kind": kind, "height": lie.height, "recordedHeight": lie.recorded_height}}


def render(listed: list[dict[str, Any]], *, wide: bool) -> str:
    """A row a validator; SIGNED is of the newest blocks that the answering process saw."""
    header = ["NAME", "STATE", "POWER", "SINCE", "SIGNED", "TRUST", "EVIDENCE"]
    if wide:
        header += ["ADDRESS", "HOLDER"]
    rows = []
    for entry in listed:
        lie = entry["evidence"]
        counted = entry["countedBlocks"]
        row = [
            entry["name"],
            entry["state"],
            str(entry["power"]),
            str(entry["since"] or "-"),
            f"{entry['signedBlocks']} of {counted}" if counted else "-",
            "-" if entry["trustScore"] is None else str(entry["trustScore"]),
            f"{lie['kind']} at {lie['height']}" if lie else "none",
        ]
        rows.append(row + ([entry["address"], entry["holder"] or "-"] if wide else []))
    return table(header, rows)


async def trust_scores(client: LedgerClient, holders: set[bytes]) -> dict[bytes, int]:
    """By key id; without those that the ledger can't show now."""
    scores = {}
    for holder in sorted(holders - {b""}):
        try:
            proof = await client.get_proof(keys.node(holder))
        except LedgerUnavailable:
            continue
        if proof.value:
            scores[holder] = ledger_pb2.NodeRecord.FromString(proof.value).trust_score
    return scores


async def run(options: Options, arguments: argparse.Namespace) -> int:
    async with reached(options, arguments) as there:
        found = await there.client.inspect()
        seats = await there.client.validators()
        trust = await trust_scores(there.client, {record.holder for record in seats.validators})
    listed = summarize(seats, list(found.standings), trust)
    if is_structured(options.output):
        print(structured(listed, options.output))
    elif not listed:
        print("No block was signed since this ledger started; see: kubectl hypermesh ledger status")
    else:
        print(render(listed, wide=options.output == "wide"))
    return 0
