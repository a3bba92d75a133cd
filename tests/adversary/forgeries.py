"""Ten thousand and more forged transactions out of a handful of real ones, each with the reasons that would be right.

What is mutated without the key keeps a signature that does not cover it; what is signed again (in batches, with the
right key or a wrong one) has nothing wrong but the one thing that its name says.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from hypermesh import batches, certificates, falcon, operations
from hypermesh.operations import MAX_ENVELOPE_BYTES, TICKETLESS, canonical
from hypermesh.proofs.tickets import stake_ticket_hash
from hypermesh.refusals import Reason
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2

from .scenes import PROOFS, Forgery, Original, Scene, Unsigned, sign, sign_all
from .values import mutations, other_encodings

CUTS = 100
BITS = 200

LAWFUL = (
    "valid_until_ms",
    "commit_work.commitments",
    "prove.space.answers[]",
    "commit_memory.commitment.slabs",
    "commit_memory.commitment.root",
    "register_asset.name",
    "register_asset.capacity",
    "register_asset.sharing",
    "update_asset.capacity",
    "update_asset.sharing",
    "join_validator.extends_votes",
    "allocate.namespace",
    "allocate.name",
    "allocate.amount",
    "allocate.lease_seconds",
    "allocate.port",
    "allocate.capability_hash",
    "allocate.max_price_per_hour",
    "allocate.min_trust_score",
    "delegate.rights",
    "delegate.until_ms",
)
"""What the signer may choose within bounds: mutating it and signing again may give another correct operation. Values
beyond the bounds are in `out_of_bounds`."""
FORM = frozenset({Reason.Malformed, Reason.NotCanonical, Reason.TooLarge, Reason.UnsupportedAlgorithm})
BAD_SIGNATURE = frozenset({Reason.BadSignature})
UNSIGNED = FORM | BAD_SIGNATURE | {Reason.WrongChain, Reason.Expired, Reason.ValidityTooLong, Reason.UnknownSigner}
UNSIGNED |= {Reason.SpaceTicketMissing, Reason.StakeTicketMissing, Reason.WorkTicketMissing, Reason.TimeTicketMissing}
UNSIGNED |= {Reason.CertificateInvalid}
"""Of bytes that no key signed. All come before the signature; nothing that the state holds is told about them."""
STRANGER = frozenset({Reason.UnknownSigner, Reason.RoleForbidden, Reason.BadSignature})
"""Of an operation signed by somebody else in their own name; and what OF_STRANGERS says of its kind."""
OF_STRANGERS = {
    "prove": {Reason.NotCommitted},
    "commit_memory": {Reason.IdentifierWrong},
    "prove_memory": {Reason.NotCommitted},
    "register_asset": {Reason.IdentifierWrong},
    "allocate": {Reason.IdentifierWrong},
    "join_validator": {Reason.PossessionUnproven},
    "leave_validator": {Reason.NotValidator},
    "delegate": {Reason.RevisionConflict},
    "revoke": {Reason.RevisionConflict},
}
EXPECTED: dict[str, set[Reason]] = {
    "chain_id": {Reason.WrongChain},
    "valid_until_ms": {Reason.Expired, Reason.ValidityTooLong},
    "enrol_node.": {Reason.CertificateInvalid},
    "commit_work.epoch": {Reason.EpochWrong},
    "commit_work.commitments": {Reason.Malformed},
    "prove.epoch": {Reason.EpochWrong},
    "prove.space": {Reason.SpaceProofInvalid},
    "prove.work": {Reason.WorkProofInvalid},
    "prove.time": {Reason.TimeProofInvalid},
    "commit_memory.epoch": {Reason.EpochWrong},
    "commit_memory.commitment.asset": {Reason.Malformed, Reason.IdentifierWrong},
    "commit_memory.hardware_id": {Reason.Malformed, Reason.IdentifierWrong},
    "commit_memory.": {Reason.Malformed},
    "prove_memory.epoch": {Reason.EpochWrong, Reason.NotCommitted},
    "prove_memory.proof.asset": {Reason.Malformed, Reason.NotCommitted},
    "prove_memory.proof.paths": {Reason.SpaceProofInvalid},
    "prove_memory.": {Reason.Malformed},
    "register_asset.asset_id": {Reason.IdentifierWrong},
    "register_asset.type": {Reason.Malformed, Reason.IdentifierWrong},
    "register_asset.hardware_id": {Reason.Malformed, Reason.IdentifierWrong},
    "register_asset.address": {Reason.AddressWrong},
    "register_asset.revision": {Reason.RevisionConflict},
    "register_asset.work_device": {Reason.Malformed, Reason.WorkTicketForeign},
    "register_asset.": {Reason.Malformed},
    "update_asset.asset_id": {Reason.NoSuchAsset},
    "update_asset.revision": {Reason.RevisionConflict},
    "update_asset.": {Reason.Malformed},
    "retire_asset.asset_id": {Reason.NoSuchAsset},
    "retire_asset.revision": {Reason.RevisionConflict},
    "allocate.allocation_id": {Reason.IdentifierWrong},
    "allocate.uid": {Reason.Malformed, Reason.IdentifierWrong},
    "allocate.asset_id": {Reason.NoSuchAsset},
    "allocate.privacy_level": {Reason.Malformed, Reason.PrivacyForbidden},
    "allocate.address": {Reason.AddressWrong},
    "allocate.amount": {Reason.Malformed, Reason.PriceTooHigh, Reason.InsufficientCapacity},
    "allocate.lease_seconds": {Reason.LeaseInvalid},
    "allocate.": {Reason.Malformed},
    "release.allocation_id": {Reason.NoSuchAllocation},
    "join_validator.": {Reason.Malformed, Reason.PossessionUnproven},
    "delegate.delegate": {Reason.Malformed, Reason.UnknownSigner},
    "delegate.revision": {Reason.RevisionConflict},
    "delegate.": {Reason.Malformed},
    "revoke.delegate": {Reason.NotDelegated},
    "revoke.revision": {Reason.RevisionConflict},
}
"""What a field is refused for that the right key signed with a wrong value: the first line that begins its path."""


def lawful(path: str) -> bool:
    """Whether the signer may choose what is there."""
    return any(path == each or path.startswith((f"{each}.", f"{each}[")) for each in LAWFUL)


def expected(path: str) -> frozenset[Reason]:
    """Of a signed field; a kind without its own is Malformed. Raises AssertionError for a field nobody spoke of."""
    if "." not in path and path not in EXPECTED:
        return frozenset({Reason.Malformed})
    for begin, reasons in EXPECTED.items():
        if path.startswith(begin):
            return frozenset(reasons)
    raise AssertionError(f"say in EXPECTED (tests/adversary/forgeries.py) what a wrong {path} is refused for")


def forgeries(scene: Scene, chance: random.Random) -> list[Forgery]:
    """All of them; each transaction once, and none of the originals."""
    found: list[Forgery] = []
    for original in scene.originals:
        found += unsigned(original, chance)
        found += sign_all(original.signer, [*altered(original, chance), *tickets(scene, original, chance)])
        found += wrong_signers(scene, original)
        found += encodings(original)
        found += batch_tricks(original, chance)
    return list({each.tx: each for each in found}.values())


def unsigned(original: Original, chance: random.Random) -> Iterator[Forgery]:
    """Without the key: fields of envelope, operation and tickets, bits, cuts, and additions."""
    operation = canonical(original.operation)
    for how in ("single", "batch"):
        if how == "single":
            envelope = sign(original.signer, operation, original.refs)
        else:
            [one] = sign_all(original.signer, [Unsigned("", operation, original.refs)])
            envelope = ledger_pb2.Envelope.FromString(one.tx)
        name, tx = f"{original.kind} {how}", canonical(envelope)
        for path, changed in mutations(envelope, chance):
            yield Forgery(f"{name}: envelope {path}", canonical(changed), UNSIGNED)
        for path, altered_operation in mutations(original.operation, chance):
            copy = ledger_pb2.Envelope.FromString(tx)
            copy.operation = canonical(altered_operation)
            yield Forgery(f"{name}: unsigned {path}", canonical(copy), UNSIGNED)
        for cut in chance.sample(range(len(tx)), CUTS):
            yield Forgery(f"{name}: cut at {cut}", tx[:cut], UNSIGNED)
        for bit in chance.sample(range(len(tx) * 8), BITS):
            flipped = bytearray(tx)
            flipped[bit // 8] ^= 1 << bit % 8
            yield Forgery(f"{name}: bit {bit}", bytes(flipped), UNSIGNED)
        for where, extra in itertools.product((0, len(tx) // 2, len(tx)), (b"\0", b"\x0a", chance.randbytes(40))):
            yield Forgery(f"{name}: bytes added at {where}", tx[:where] + extra + tx[where:], UNSIGNED)
        room = MAX_ENVELOPE_BYTES + 1 - len(tx)
        yield Forgery(f"{name}: oversized", tx + bytes(room), frozenset({Reason.TooLarge}))


def altered(original: Original, chance: random.Random) -> Iterator[Unsigned]:
    """Signed by the right key, but not what that key may ask for."""
    for path, changed in mutations(original.operation, chance):
        if not lawful(path):
            yield Unsigned(f"{original.kind}: signed {path}", canonical(changed), original.refs, expected(path))
    if original.kind == "enrol_node":
        yield from _certificates(original, chance)
    for path, changed in out_of_bounds(original.operation):
        whole = path if path == "valid_until_ms" else f"{original.kind}.{path}"
        yield Unsigned(f"{original.kind}: out of bounds {path}", canonical(changed), original.refs, expected(whole))


def _certificates(original: Original, chance: random.Random) -> Iterator[Unsigned]:
    """Terms that the root did not sign: another body under its signature, and the same body under another's."""
    body = trust_pb2.CertificateBody.FromString(original.operation.enrol_node.certificate.body)
    signature = falcon.sign(original.signer.keypair.secret, certificates.DOMAIN, canonical(body))
    cases = [(path, canonical(changed), None) for path, changed in mutations(body, chance)]
    cases += [(name, data, None) for name, data in other_encodings(canonical(body))]
    for path, data, other in [*cases, ("self-signed", canonical(body), signature)]:
        copy = ledger_pb2.Operation()
        copy.CopyFrom(original.operation)
        copy.enrol_node.certificate.body = data
        copy.enrol_node.certificate.signature = other or copy.enrol_node.certificate.signature
        yield Unsigned(f"enrol_node: certificate {path}", canonical(copy), None, expected("enrol_node.certificate"))


def out_of_bounds(operation: ledger_pb2.Operation) -> Iterator[tuple[str, ledger_pb2.Operation]]:
    """What no signer may choose in the fields that are free within bounds."""
    kind = str(operation.WhichOneof("kind"))
    until = operation.valid_until_ms
    values: dict[str, list[object]] = {"valid_until_ms": [0, 1, -1, until - (1 << 32), until + (1 << 31), -(1 << 63)]}
    sharing: dict[str, list[object]] = {
        "sharing.privacy_level": [0, 99, -1],
        "sharing.price_per_hour": ["-1", "1e3", "1.5", " 1", "٣", "9" * 500, "+1", "1_0", "0x1"],
        "sharing.owner_namespaces": [["b", "a"], ["a", "a"], [""], ["x" * 64], [f"n{i:03}" for i in range(65)]],
    }
    match kind:
        case "commit_work":
            values["commitments"] = [[], [*operation.commit_work.commitments] * 2]
            for device, root in ((b"", b"x" * 32), (b"x" * 31, b"x" * 32), (b"x" * 32, b""), (b"x" * 32, b"x" * 33)):
                values["commitments"].append([proofs_pb2.WorkCommitment(device=device, root=root)])
            many = [proofs_pb2.WorkCommitment(device=bytes([i]) * 32, root=b"r" * 32) for i in range(65)]
            values["commitments"].append(many)
        case "prove":
            answers = list(operation.prove.space.answers)
            values["space.answers"] = [[], answers[:1], [*answers, answers[-1]], answers[::-1], answers[:1] * 8]
        case "commit_memory":
            values |= {
                "commitment.slabs": [0, (1 << 32) - 1],
                "commitment.root": [b"", b"x" * 31, b"x" * 33],
                "hardware_id": ["", "x" * 254, "ram-1"],
            }
        case "prove_memory":
            paths = list(operation.prove_memory.proof.paths)
            values["proof.paths"] = [[], paths[:-1], [*paths, paths[-1]], [paths[1], paths[0], *paths[2:]]]
        case "register_asset":
            values |= {"name": ["", "x" * 254], "capacity": [0], **sharing}
        case "update_asset":
            values |= {"capacity": [0], **sharing}
        case "allocate":
            values |= {
                "namespace": ["", "x" * 64],
                "name": ["", "x" * 254],
                "amount": [0, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1],
                "lease_seconds": [0, 366 * 86_400 + 1, 1 << 62, (1 << 64) - 1],
                "port": [0, 65_536, (1 << 32) - 1],
                "capability_hash": [b"", b"x" * 31, b"x" * 33],
                "max_price_per_hour": ["-1", "1e3", "1.5", " 1", "9" * 500],
                "min_trust_score": [10_001, (1 << 32) - 1],
            }
        case "delegate":
            values["rights"] = [[], [2, 1], [1, 1], [0], [1, 3], [99]]
            values["until_ms"] = [0, -1, 1, 1 << 62, -(1 << 63), until + 366 * 86_400_000]
    for path, others in values.items():
        for value in others:
            copy = ledger_pb2.Operation()
            copy.CopyFrom(operation)
            holder: object = copy if path == "valid_until_ms" else getattr(copy, kind)
            *above, name = path.split(".")
            for each in above:
                holder = getattr(holder, each)
            if isinstance(value, list):
                holder.ClearField(name)  # type: ignore[attr-defined]
                getattr(holder, name).extend(value)
            else:
                setattr(holder, name, value)
            if copy != operation:  # two paths of a proof may be of the same block, and then their order says nothing
                yield path, copy


def tickets(scene: Scene, original: Original, chance: random.Random) -> Iterator[Unsigned]:
    """Signed by the right key with tickets that are absent, cut, swapped, foreign, stale, or nobody's."""
    operation, refs = canonical(original.operation), original.refs
    if refs is None:
        fake = proofs_pb2.TicketRefs(**dict.fromkeys(PROOFS, b"t" * 32))
        for each in (proofs_pb2.TicketRefs(), fake):
            yield Unsigned(f"{original.kind}: tickets", operation, each, frozenset({Reason.Malformed}))
        return
    assert original.kind not in TICKETLESS
    yield Unsigned(f"{original.kind}: no tickets", operation, None, frozenset({Reason.SpaceTicketMissing}))
    for name in PROOFS:
        true = getattr(refs, name)
        missing, foreign, stale = (Reason(f"{name.capitalize()}Ticket{how}") for how in ("Missing", "Foreign", "Stale"))
        nobodys = foreign if name == "stake" else missing  # a stake ticket is computed, not looked up
        cases = [(b"", missing), (true[:-1], missing), (true + b"\0", missing), (true * 2, missing)]
        cases += [(bytes(32), nobodys), (true[::-1], nobodys), (chance.randbytes(32), nobodys)]
        cases += [(bytes(b ^ (bit == i) * 1 << chance.randrange(8) for i, b in enumerate(true)), nobodys)
                  for bit in range(32)]  # fmt: skip
        cases += [(getattr(refs, other), foreign) for other in PROOFS if other != name]
        cases += [(each, foreign) for each in scene.foreign.get(name, ())]
        cases += [(each, stale) for each in stale_tickets(scene, original, name)]
        for value, reason in cases:
            if name != "stake" and value == refs.stake:
                reason = missing  # it is in no table of tickets
            changed = proofs_pb2.TicketRefs()
            changed.CopyFrom(refs)
            setattr(changed, name, value)
            yield Unsigned(f"{original.kind}: {name} ticket", operation, changed, frozenset({reason}))
    own = [getattr(refs, name) for name in PROOFS]
    ticket_reasons = frozenset(reason for reason in Reason if "Ticket" in reason)
    for order in itertools.permutations(own):
        if list(order) != own:
            swapped = proofs_pb2.TicketRefs(**dict(zip(PROOFS, order, strict=True)))
            yield Unsigned(f"{original.kind}: tickets swapped", operation, swapped, ticket_reasons)


def stale_tickets(scene: Scene, original: Original, name: str) -> list[bytes]:
    """Right once, too old now."""
    if name != "stake" or scene.stale_epoch is None:
        return list(scene.stale.get(name, ()))
    who = original.signer
    return [stake_ticket_hash(who.key_id, who.body.role, who.certificate, scene.stale_epoch)]


def wrong_signers(scene: Scene, original: Original) -> Iterator[Forgery]:
    """Signed by somebody else, in their own name and in the right signer's; and their signature on its operation."""
    operation = canonical(original.operation)
    one = [Unsigned(original.kind, operation, original.refs)]
    theirs = STRANGER | OF_STRANGERS.get(original.kind, set())
    for who, other in scene.others.items():
        for forgery in sign_all(other, one):
            yield Forgery(f"{original.kind}: signed by {who}", forgery.tx, theirs)
        for forgery in sign_all(other, one, claimed=original.signer.key_id):
            yield Forgery(f"{original.kind}: signed by {who} in another's name", forgery.tx, BAD_SIGNATURE)
        single = sign(other, operation, original.refs)
        yield Forgery(f"{original.kind}: singly signed by {who}", canonical(single), theirs)
        single.signer = original.signer.key_id
        yield Forgery(f"{original.kind}: singly signed by {who} in another's name", canonical(single), BAD_SIGNATURE)


def encodings(original: Original) -> Iterator[Forgery]:
    """The same operation in bytes that are not the one encoding: of the envelope, and signed, of the operation."""
    operation = canonical(original.operation)
    reasons = FORM | {Reason.BadSignature, Reason.SpaceTicketMissing}
    for name, data in other_encodings(canonical(sign(original.signer, operation, original.refs))):
        yield Forgery(f"{original.kind}: envelope {name}", data, reasons)
    odd = [
        Unsigned(f"{original.kind}: operation {name}", data, original.refs, FORM)
        for name, data in other_encodings(operation)
    ]
    odd += [
        Unsigned(f"{original.kind}: operation cut", operation[:cut], original.refs, FORM)
        for cut in range(0, len(operation), max(1, len(operation) // 16))
        if cut
    ]
    yield from sign_all(original.signer, odd)


def batch_tricks(original: Original, chance: random.Random) -> Iterator[Forgery]:
    """Paths that are longer, shorter, of other leaves; inner nodes as leaves; a root passed off as an operation."""
    operation = canonical(original.operation)
    filler = [Unsigned("", chance.randbytes(40), original.refs) for _ in range(6)]
    signed = sign_all(original.signer, [Unsigned("", operation, original.refs), *filler])
    first, second = (ledger_pb2.Envelope.FromString(signed[index].tx) for index in (0, 1))
    whole = list(first.batch_path)
    root = batches.root(batches.leaf(*_own(first)), 0, whole)
    paths: list[tuple[str, int, list[bytes]]] = [
        ("no path", 0, []),
        ("cut above", 0, whole[:-1]),
        ("cut below", 0, whole[1:]),
        ("longer", 0, [*whole, chance.randbytes(32)]),
        ("longest", 0, [chance.randbytes(32) for _ in range(batches.MAX_DEPTH)]),
        ("too long", 0, [*whole, *[bytes(32)] * batches.MAX_DEPTH]),
        ("reversed", 0, whole[::-1]),
        ("another's", 1, list(second.batch_path)),
        ("zeros", 0, [bytes(32)] * len(whole)),
        ("short hash", 0, [whole[0][:-1], *whole[1:]]),
        ("long hash", 0, [whole[0] + b"\0", *whole[1:]]),
        *((f"index {index}", index, whole) for index in (1, 2, 3, 4, 7, 8, 1 << 12, (1 << 32) - 1)),
        *((f"sibling {at}", 0, [*whole[:at], chance.randbytes(32), *whole[at + 1 :]]) for at in range(len(whole))),
    ]
    for name, index, path in paths:
        copy = ledger_pb2.Envelope.FromString(signed[0].tx)
        copy.batch_index = index
        del copy.batch_path[:]
        copy.batch_path.extend(path)
        yield Forgery(f"{original.kind}: batch {name}", canonical(copy), frozenset({*BAD_SIGNATURE, Reason.Malformed}))
    bare = ledger_pb2.Envelope.FromString(signed[0].tx)
    bare.operation = root
    del bare.batch_path[:]
    yield Forgery(f"{original.kind}: batch root as operation", canonical(bare), FORM)
    inner = ledger_pb2.Envelope.FromString(signed[0].tx)
    inner.operation = batches.leaf(*_own(first)) + whole[0]
    inner.batch_path.pop(0)
    yield Forgery(f"{original.kind}: batch node as operation", canonical(inner), FORM)
    single = sign(original.signer, operation, original.refs)
    single.batch_path.extend(whole)
    yield Forgery(f"{original.kind}: single signature with a path", canonical(single), BAD_SIGNATURE)


def _own(envelope: ledger_pb2.Envelope) -> tuple[bytes, bytes]:
    return envelope.operation, operations.canonical(envelope.tickets) if envelope.HasField("tickets") else b""
