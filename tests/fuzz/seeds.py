"""Inputs to begin with: one good message of each form, made anew, and what past findings left in corpus/<target>/."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from hypermesh import falcon, keyfile, operations
from hypermesh.operations import canonical
from hypermesh.v1 import ledger_pb2, proofs_pb2, resource_pb2, trust_pb2
from hypermesh_ledger.abci.framing import encode_response
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci

from ..builders import TrustRoot, allocation, member, registration
from .gossip_targets import gossip_seeds
from .ledger_targets import ledger_seeds
from .place_targets import place_seeds
from .targets import ADDRESS, NODE, TARGETS
from .vote_targets import vote_seeds

CORPUS = Path(__file__).resolve().parent / "corpus"
HASH = b"h" * 32


def seeds(target: str) -> list[bytes]:
    """At least one of each target; the messages are valid where the target can accept any."""
    return [*_made()[target], *(path.read_bytes() for path in sorted((CORPUS / target).glob("*")))]


@cache
def _made() -> dict[str, Sequence[bytes]]:
    root = TrustRoot()
    node = member(root, trust_pb2.ROLE_NODE, "node-1")
    cpu = registration(node, ledger_pb2.ASSET_TYPE_CPU, "cpu-0", 100, namespaces=["a", "b"], price="10")
    prove = ledger_pb2.Prove(
        epoch=7,
        space=proofs_pb2.SpaceProof(
            k=18, answers=[proofs_pb2.SpaceAnswer(index=index, proof=bytes(144)) for index in range(8)]
        ),
        work=[
            proofs_pb2.WorkProof(
                device=NODE,
                round_roots=[HASH] * 8,
                openings=[proofs_pb2.TileOpening(round=1, tile=5, values=bytes(256), path=[HASH] * 14)],
            )
        ],
        time=proofs_pb2.TimeProof(iterations=200_000, output=bytes([3, 0]) + bytes(198)),
    )
    remembered = ledger_pb2.ProveMemory(
        epoch=7,
        proof=proofs_pb2.MemoryProof(asset=NODE, paths=[proofs_pb2.MemoryPath(siblings=[HASH] * 4)] * 32),
    )
    kinds = [
        ledger_pb2.Operation(enrol_node=ledger_pb2.EnrolNode(certificate=node.certificate)),
        ledger_pb2.Operation(prove=prove),
        ledger_pb2.Operation(prove_memory=remembered),
        ledger_pb2.Operation(register_asset=cpu),
        ledger_pb2.Operation(allocate=allocation(node, cpu, "u", 1)),
        ledger_pb2.Operation(release=ledger_pb2.Release(allocation_id=HASH)),
    ]
    refs = proofs_pb2.TicketRefs(space=HASH, stake=HASH, work=HASH, time=HASH)
    asked = [(each, None if each.WhichOneof("kind") in operations.TICKETLESS else refs) for each in kinds]
    for each in kinds:
        each.chain_id, each.valid_until_ms = "hypermesh-test", 1 << 41
    pair = node.keypair
    transactions = [operations.build(each, pair.public, pair.secret, named) for each, named in asked]
    transactions += operations.build_batch(asked, pair.public, pair.secret)
    records = ledger_pb2.Changes(
        changes=[
            ledger_pb2.Change(asset=ledger_pb2.AssetRecord(registration=cpu, node=NODE, revision=1)),
            ledger_pb2.Change(ticket=proofs_pb2.Ticket(kind=proofs_pb2.PROOF_KIND_WORK, subject=NODE, epoch=1)),
            ledger_pb2.Change(ticket_gone=proofs_pb2.Ticket(kind=proofs_pb2.PROOF_KIND_WORK, subject=NODE, epoch=1)),
            ledger_pb2.Change(block=ledger_pb2.Block(height=1, time_ms=2, app_hash=HASH)),
            ledger_pb2.Change(allocation_gone=HASH),
            ledger_pb2.Change(synced=True),
        ]
    )
    requests = [
        abci.Request(echo=abci.RequestEcho(message="x")),
        abci.Request(query=abci.RequestQuery(path="/store/ledger/key", data=b"genesis")),
        abci.Request(process_proposal=abci.RequestProcessProposal(txs=transactions[:1], height=5)),
    ]
    enrolments = [
        trust_pb2.EnrolmentRequest(public_key=pair.public, algorithm=trust_pb2.SIGNATURE_ALGORITHM_FALCON_PADDED_1024),
        trust_pb2.EnrolmentProof(public_key=pair.public, nonce=HASH, signature=bytes(1280)),
    ]
    texts = ["500m", "2", "1.5Gi", "1e3", ".5", "0", "24h", "1h30m", "90s", "0.25", "1" + "0" * 18, "-1", "1E", "12e-3"]
    made: dict[str, Sequence[bytes]] = {
        "operation": transactions,
        "abci_framing": [b"".join(encode_response(each) for each in requests)],  # type: ignore[arg-type]
        "proofs": [canonical(prove)],
        "address": [ADDRESS.packed, str(ADDRESS).encode(), b"::1%1", b"fd00::"],
        "certificate": [canonical(node.certificate), node.certificate.body],
        "changes": [canonical(records)],
        "amounts": [text.encode() for text in texts],
        "resource": [
            f"{ADDRESS}\nBearer token".encode(),
            canonical(resource_pb2.ReadRequest(offset=5, length=7)),
            canonical(resource_pb2.WriteRequest(offset=5, data=b"data")),
        ],
        "key_file": [keyfile.wrap(falcon.KeyPair(pair.public, pair.secret).encode(), HASH)],
        "enrolment": [canonical(each) for each in enrolments],
        **ledger_seeds() | vote_seeds() | place_seeds() | gossip_seeds(),
    }
    assert made.keys() == TARGETS.keys()
    return made
