"""`kubectl hypermesh ledger proofs NODE|ASSET`: which tickets it holds, how fresh they are, and what they show.

    name -> node's key id (of an asset: its record's node and work device) -> copy of the node's records -> table
                                                                           -> its place record, validators -> bounds

Whether a ticket still counts is the ledger's to judge: an epoch and `grace_epochs` more, as the genesis says.
"""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from typing import Any, Final

from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2, votes_pb2
from hypermesh_clients.mirror import View
from hypermesh_ledger import keys
from kubectl_hypermesh.ledger import places
from kubectl_hypermesh.ledger.naming import asset_of, copied, id_of, node_of
from kubectl_hypermesh.ledger.reach import Reached, reached
from kubectl_hypermesh.options import CommandError, Options
from kubectl_hypermesh.output import is_structured, painted, short_time, structured, table

MEANING: Final = {
    "space": ("whoever holds this node's plot answered after the beacon", "that the plot was kept, or where it is"),
    "stake": ("this key is enrolled and may act for its role", "wealth: no coin is at stake"),
    "work": ("nearly all of the products were computed for this device", "which device computed, or how fast it is"),
    "time": ("so many sequential squarings came after the beacon", "seconds: the fastest machine sets their length"),
}
"""What each shows, and what it does not: docs/concepts/proofs.md in one line."""
DOCS: Final = "docs/concepts/proofs.md"


def add_parser(parts: Any, parents: list[argparse.ArgumentParser]) -> None:
    parser = parts.add_parser("proofs", parents=parents, help="tickets of a node, or those that an asset needs")
    parser.add_argument("name", metavar="NODE|ASSET", help="a node's or an Asset's name, or their id in hex")
    parser.set_defaults(run=run)


def summarize(view: View, node: bytes, device: bytes | None, now_ms: int) -> dict[str, Any]:
    """device: only the tickets that operations on an asset with this work device need; None for all of the node."""
    record = view.nodes.get(node)
    if record is None:
        raise CommandError(f"node {node.hex()} is not enrolled; see: kubectl hypermesh assets")
    body = trust_pb2.CertificateBody.FromString(record.certificate.body)
    names = {asset.registration.asset_id: asset.registration.name for asset in view.assets.values()}
    tickets = [ticket for (_, subject), ticket in view.tickets.items() if subject == node and ticket.node == node]
    tickets += [t for (of, subject), t in view.work_tickets.items() if of == node and device in (None, subject)]
    unique = {(ticket.kind, ticket.subject): ticket for ticket in tickets}
    shown = [
        _ticket(ticket, names.get(ticket.subject, body.subject), view, now_ms) for _, ticket in sorted(unique.items())
    ]
    missing = [kind for kind in ("space", "work", "time") if kind not in {entry["proof"] for entry in shown}]
    return {
        "node": body.subject,
        "keyID": node.hex(),
        "trustScore": record.trust_score,
        "epoch": view.epoch.number,
        "graceEpochs": view.genesis.proofs.grace_epochs,
        "tickets": [*shown, _stake(body, now_ms)],
        "missing": missing,
        "seed": _seed(view.work_seeds.get(node), shown),
    }


def _ticket(ticket: proofs_pb2.Ticket, of: str, view: View, now_ms: int) -> dict[str, Any]:
    kind = proofs_pb2.ProofKind.Name(ticket.kind).removeprefix("PROOF_KIND_").lower()
    left = ticket.epoch + view.genesis.proofs.grace_epochs - view.epoch.number
    return {
        "proof": kind,
        "of": of,
        "subject": ticket.subject.hex(),
        "epoch": ticket.epoch,
        "ageSeconds": max(0, now_ms - ticket.issued_ms) // 1000,
        "fresh": left >= 0,
        "epochsLeft": max(0, left),
        "hash": ticket.hash.hex(),
        **_meaning(kind),
    }


def _stake(body: trust_pb2.CertificateBody, now_ms: int) -> dict[str, Any]:
    """Follows from the enrolment in every epoch: nothing is held for it."""
    until = datetime.fromtimestamp(body.not_after, UTC).isoformat().replace("+00:00", "Z")
    return {
        "proof": "stake",
        "of": body.subject,
        "fresh": body.not_before * 1000 <= now_ms < body.not_after * 1000,
        "until": until,
        **_meaning("stake"),
    }


def _meaning(kind: str) -> dict[str, str]:
    shows, lacks = MEANING.get(kind, ("", ""))
    return {"shows": shows, "doesNotShow": lacks}


def _seed(seed: ledger_pb2.WorkSeed | None, shown: list[dict[str, Any]]) -> dict[str, Any] | None:
    """A commitment whose opening has not come yet."""
    if seed is None or any(entry["proof"] == "work" and entry["epoch"] >= seed.epoch for entry in shown):
        return None
    return {"epoch": seed.epoch, "height": seed.height, "devices": len(seed.commitments)}


def render(summary: dict[str, Any]) -> str:
    """One row a ticket, what is missing or waiting, then what the tickets show and don't."""
    lines = [
        f"Node {summary['node']}, key {summary['keyID'][:16]}, trust score {summary['trustScore']}",
        f"Epoch {summary['epoch']}; a ticket counts for its epoch and {summary['graceEpochs']} more",
        "",
    ]
    rows = []
    for entry in summary["tickets"]:
        if "epoch" in entry:
            left = f"yes, {entry['epochsLeft']} more" if entry["fresh"] else "no"
            rows.append([entry["proof"], entry["of"], str(entry["epoch"]), short_time(entry["ageSeconds"]), left])
        else:
            rows.append(
                [
                    entry["proof"],
                    entry["of"],
                    "-",
                    "-",
                    f"{'until' if entry['fresh'] else 'no, ended'} {entry['until']}",
                ]
            )
    lines.append(table(["PROOF", "OF", "EPOCH", "AGE", "FRESH"], rows))
    for kind in summary["missing"]:
        lines.append(painted(f"No {kind} ticket: the node has not proven it within the epochs that are kept", "red"))
    if summary["seed"]:
        seed = summary["seed"]
        lines.append(
            f"Waiting: work of {seed['devices']} devices was committed for epoch {seed['epoch']} in block "
            f"{seed['height']}, its opening has not come yet"
        )
    lines.append("")
    kinds = {entry["proof"]: entry for entry in summary["tickets"]}
    width = max(map(len, kinds))
    for kind, entry in kinds.items():
        if entry["shows"]:
            lines.append(f"{kind:<{width}}   shows that {entry['shows']}; not {entry['doesNotShow']}")
    lines.append(f"{'':<{width}}   more in {DOCS}")
    return "\n".join(lines)


async def _resolved(there: Reached, text: str) -> tuple[bytes, bytes | None]:
    """Node's key id, and the asset's work device. Raises CommandError."""
    asset = id_of(text)
    if asset is None:
        try:
            return await node_of(there, text), None
        except CommandError:
            if there.kube is None:
                raise
            try:
                asset = await asset_of(there, text)
            except CommandError as error:
                raise CommandError(
                    f"{text} is neither an enrolled node nor an asset; see: kubectl hypermesh assets"
                ) from error
    proof = await there.client.get_proof(keys.asset(asset))
    if not proof.value:
        return asset, None  # an id that no asset has is a node's, or nobody's
    record = ledger_pb2.AssetRecord.FromString(proof.value)
    return record.node, record.registration.work_device


async def run(options: Options, arguments: argparse.Namespace) -> int:
    async with reached(options, arguments) as there:
        node, device = await _resolved(there, arguments.name)
        async with copied(there.client, node) as view:
            summary = summarize(view, node, device, time.time_ns() // 1_000_000)
        held = votes_pb2.PlaceRecord.FromString((await there.client.get_proof(keys.place(node))).value)
        summary["place"] = places.summarize(held, await there.client.validators(), summary["epoch"])
    if is_structured(options.output):
        print(structured(summary, options.output))
    else:
        print("\n".join([render(summary), *places.render(summary["place"])]))
    return 0
