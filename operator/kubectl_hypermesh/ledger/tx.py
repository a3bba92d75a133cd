"""`kubectl hypermesh ledger tx`: what a transaction said, who signed it, in which block, and what became of it.

    HASH       -> the ledger's rows of outcomes (the newest 1,000 blocks) -> CometBFT's block -> decoded here
    --height H -> the transactions of one block that CometBFT still holds

The signature is checked on this machine: the envelope names its key by the key's hash, so whoever shows a key with that
hash shows the right one. Where to find hashes: `kubectl get proxymappings -o wide`, Events, an agent's log.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import DecodeError

from hypermesh import falcon, operations
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_clients.ledger import LedgerClient, LedgerUnavailable, NotHeld
from hypermesh_ledger import keys
from kubectl_hypermesh.ledger.messages import plain
from kubectl_hypermesh.ledger.reach import reached
from kubectl_hypermesh.options import CommandError, Options
from kubectl_hypermesh.output import is_structured, painted, pairs, structured, table


def add_parser(parts: Any, parents: list[argparse.ArgumentParser]) -> None:
    parser = parts.add_parser("tx", parents=parents, help="a transaction by its hash, or all of a block")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("hash", nargs="?", type=_hash, help="64 hex digits")
    which.add_argument("--height", type=height, metavar="HEIGHT", help="list the transactions of this block instead")
    parser.set_defaults(run=run)


def _hash(text: str) -> bytes:
    try:
        found = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        found = b""
    if len(found) != 32:
        raise argparse.ArgumentTypeError(f"{text!r} is no transaction's hash: it has 64 hex digits")
    return found


def height(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 1 << 63:
        raise argparse.ArgumentTypeError(f"{text!r} is no height: blocks begin with 1")
    return int(text)


def outcome(record: ledger_pb2.TransactionRecord) -> dict[str, str]:
    """What became of it: result, and for a refusal its reason, message and remedy."""
    if not record.known:
        return {"result": "Unknown", "message": "its outcome is no longer kept"}
    if not record.reason:
        return {"result": "Committed"}
    known = Reason._value2member_map_.get(record.reason)
    remedy = known.remedy if isinstance(known, Reason) else ""
    return {"result": "Refused", "reason": record.reason, "message": record.message, "remedy": remedy}


def describe(record: ledger_pb2.TransactionRecord, signer: trust_pb2.CertificateBody | None) -> dict[str, Any]:
    """Everything that can be said of it. signer: the certificate's body, when its key is known."""
    about: dict[str, Any] = {
        "hash": record.tx_hash.hex(),
        "height": record.height,
        "index": record.index,
        "time": datetime.fromtimestamp(record.time_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        **outcome(record),
    }
    if operations.tx_hash(record.envelope) != record.tx_hash:
        return about | {"signature": "not checked: the ledger sent other bytes than those of this hash"}
    try:
        decoded = operations.decode(record.envelope)
    except Refused as refusal:
        return about | {"signature": f"not checked: the bytes are no operation ({refusal.message})"}
    envelope = decoded.envelope
    about["signer"] = {"keyID": envelope.signer.hex()}
    if signer is not None:
        role = trust_pb2.Role.Name(signer.role).removeprefix("ROLE_").lower()
        about["signer"] |= {"subject": signer.subject, "role": role, "cluster": signer.cluster}
    about["signature"] = signature(envelope, signer)
    about["batch"] = len(envelope.batch_path) > 0
    about["kind"] = decoded.kind
    about["operation"] = plain(getattr(decoded.operation, decoded.kind))
    about["validUntil"] = _moment(decoded.operation.valid_until_ms)
    about["tickets"] = {name: value.hex() for name, value in _tickets(envelope)}
    return about


def _moment(time_ms: int) -> str:
    """An operation may name any; the number itself when no calendar has it."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"


def _tickets(envelope: ledger_pb2.Envelope) -> list[tuple[str, bytes]]:
    refs = envelope.tickets
    named = [("space", refs.space), ("stake", refs.stake), ("work", refs.work), ("time", refs.time)]
    return [(name, value) for name, value in named if value]


def signature(envelope: ledger_pb2.Envelope, signer: trust_pb2.CertificateBody | None) -> str:
    """verified, INVALID, or why it was not checked."""
    if signer is None:
        return "not checked: the ledger does not know the signer's key any more"
    if falcon.key_id(signer.subject_key) != envelope.signer:
        return "INVALID: the key that the ledger shows is another one than the envelope names"
    try:
        good = falcon.verify(
            signer.subject_key, envelope.signature, operations.SIGNATURE_DOMAIN, *operations.signed_parts(envelope)
        )
    except falcon.NativeLibraryMissing as error:
        return f"not checked: {error}"
    return "verified" if good else "INVALID: it does not cover these bytes"


def render(about: dict[str, Any]) -> str:
    """Facts first, then the operation's own fields."""
    colour = {"Committed": "green", "Refused": "red"}.get(about["result"], "yellow")
    result = painted(about["result"] + (f": {about['reason']}" if "reason" in about else ""), colour)
    lines = [
        ("Transaction", about["hash"]),
        ("Block", f"{about['height']}, at place {about['index']}, {about['time']}"),
    ]
    lines.append(("Result", result))
    lines += [(name.capitalize(), about[name]) for name in ("message", "remedy") if about.get(name)]
    if "kind" in about:
        signer = about["signer"]
        who = f"{signer['subject']} ({signer['role']}), key " if "subject" in signer else "key "
        lines += [("Operation", about["kind"]), ("Signed by", who + signer["keyID"][:16])]
    good = about["signature"] == "verified"
    text = about["signature"] + (", of a batch" if about.get("batch") else "")
    lines.append(("Signature", painted(text, "green" if good else "yellow")))
    if about.get("tickets"):
        lines.append(("Tickets", ", ".join(f"{name} {value[:16]}" for name, value in about["tickets"].items())))
    text = pairs(lines)
    fields = about.get("operation")
    return text if not fields else f"{text}\n\n{structured(fields, 'yaml')}"


def render_block(block: ledger_pb2.BlockResponse) -> str:
    """One row a transaction."""
    if not block.transactions:
        return f"Block {block.height} carries no transaction."
    rows = []
    for record in block.transactions:
        try:
            decoded = operations.decode(record.envelope)
            kind, signer = decoded.kind, decoded.envelope.signer.hex()[:16]
        except Refused:
            kind, signer = "-", "-"
        became = outcome(record)
        rows.append([str(record.index), record.tx_hash.hex(), kind, signer, became.get("reason", became["result"])])
    return table(["PLACE", "HASH", "OPERATION", "SIGNER", "RESULT"], rows)


async def signer_of(client: LedgerClient, envelope: bytes) -> trust_pb2.CertificateBody | None:
    """The certificate of whoever signed: in the operation itself when it enrols, else in the newest state."""
    try:
        decoded = operations.decode(envelope)
    except Refused:
        return None
    if decoded.kind == "enrol_node":
        try:
            return trust_pb2.CertificateBody.FromString(decoded.operation.enrol_node.certificate.body)
        except DecodeError:
            return None  # as refused as it is
    try:
        proof = await client.get_proof(keys.node(decoded.envelope.signer))
    except LedgerUnavailable:
        return None
    if not proof.value:
        return None
    return trust_pb2.CertificateBody.FromString(ledger_pb2.NodeRecord.FromString(proof.value).certificate.body)


async def run(options: Options, arguments: argparse.Namespace) -> int:
    async with reached(options, arguments) as there:
        try:
            if arguments.height is not None:
                block = await there.client.block(arguments.height)
                if is_structured(options.output):
                    signers = [await signer_of(there.client, each.envelope) for each in block.transactions]
                    abouts = [describe(*pair) for pair in zip(block.transactions, signers, strict=True)]
                    print(structured(abouts, options.output))
                else:
                    print(render_block(block))
                return 0
            record = await there.client.transaction(arguments.hash)
        except NotHeld as error:
            raise CommandError(f"{error}; blocks that are still there: kubectl hypermesh ledger status") from error
        about = describe(record, await signer_of(there.client, record.envelope))
    print(structured(about, options.output) if is_structured(options.output) else render(about))
    return 0
