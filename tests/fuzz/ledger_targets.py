"""Decoders of what ledgers and their checkers read: bundles, snapshots, peers' answers, queries, key files, frames.

As targets.py. What a target needs to be judged by (a real state, signers, a directory) is made once and is the same in
every run: kept inputs stay good.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import io
import json
import random
import shutil
import struct
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from google.protobuf.message import DecodeError, Message
from prometheus_client import CollectorRegistry

from hypermesh.proofs.parameters import DEMO
from hypermesh.refusals import Reason
from hypermesh.v1 import ledger_pb2, proofs_pb2
from hypermesh_clients.trust import Trust, TrustInvalid
from hypermesh_ledger import exporting, home, joining, node_key, peering, snapshots, validator_key, verifier
from hypermesh_ledger.abci.query import query
from hypermesh_ledger.abci.server import METHODS
from hypermesh_ledger.checks import Proof
from hypermesh_ledger.core import Core
from hypermesh_ledger.errors import GenesisInvalid, HomeMismatch
from hypermesh_ledger.genesis import app_state, chain_id_of, genesis_of, initial_state, make_genesis
from hypermesh_ledger.metrics import Metrics
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci
from hypermesh_ledger.pool import Pool
from hypermesh_ledger.snapshots import CHUNKS, ChunkRefused, Snapshots, check_chunk
from hypermesh_ledger.store import Store
from hypermesh_ledger.verdicts import Verdicts
from hypermesh_verify import bundles
from hypermesh_verify.bundles import BundleRefused, Shown, check

HEIGHT = 3
"""Of the state that bundles and snapshots are of; the store is one block further."""
THERE, GONE = b"node/7", b"node/nobody"
ROOT = bytes([10]) + bytes(1792)
TIME = "2026-01-02T03:04:05.06789Z"
CHAIN = "hypermesh-fuzz"


@dataclass(frozen=True)
class Scenery:
    """Made once: a state with a past, its snapshot, an empty state, and bundles of both kinds."""

    core: Core
    empty: Core
    chunks: list[bytes]
    app_hash: bytes
    bundles: list[dict[str, Any]]
    answers: list[ledger_pb2.GetProofResponse]
    directory: Path


def loop() -> asyncio.AbstractEventLoop:
    return _loop()


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


@cache
def signers() -> list[MLDSA65PrivateKey]:
    return [MLDSA65PrivateKey.from_seed_bytes(bytes([number]) * 32) for number in range(4)]


def validators() -> list[dict[str, Any]]:
    import base64

    publics = [base64.b64encode(key.public_key().public_bytes_raw()).decode() for key in signers()]
    return [{"pub_key": {"type": bundles.KEY_TYPE, "value": each}, "voting_power": "10"} for each in publics]


def signed_header(height: int, app_hash: bytes) -> dict[str, Any]:
    """Header and commit as CometBFT's RPC gives them, signed by three of four."""
    import base64

    nothing = {"hash": "", "parts": {"total": 0, "hash": ""}}
    hashes = ("last_commit", "data", "next_validators", "consensus", "last_results", "evidence")
    header = {
        "version": {"block": "11", "app": "1"},
        "chain_id": CHAIN,
        "height": str(height),
        "time": TIME,
        "last_block_id": nothing,
        "app_hash": app_hash.hex(),
        "proposer_address": "07" * 20,
        "validators_hash": bundles.validators_hash(validators()).hex(),
        **{f"{name}_hash": f"{number:02x}" * 32 for number, name in enumerate(hashes)},
    }
    block_id = {"hash": bundles.header_hash(header).hex(), "parts": {"total": 1, "hash": "ab" * 32}}
    votes: list[dict[str, Any]] = [{"block_id_flag": 1}]
    body = bundles._field(1, 2) + bundles._fixed(2, height) + bundles._fixed(3, 1)
    body += bundles._field(4, bundles._block_id(block_id)) + bundles._message(5, bundles._timestamp(TIME))
    body += bundles._field(6, CHAIN.encode())
    for key in signers()[1:]:
        signature = base64.b64encode(key.sign(bundles._varint(len(body)) + body)).decode()
        votes.append({"block_id_flag": 2, "timestamp": TIME, "signature": signature})
    return {"header": header, "commit": {"height": str(height), "round": 1, "block_id": block_id, "signatures": votes}}


@cache
def scenery() -> Scenery:
    directory = Path(tempfile.mkdtemp(prefix="hypermesh-fuzz-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    store, chance = Store(directory / "state"), random.Random(3)
    hashes = {}
    for height in range(1, HEIGHT + 2):
        writes = {b"node/%d" % number: chance.randbytes(chance.randrange(1, 50)) for number in range(300)}
        prepared = store.prepare(height, height * 1_000, dict(writes))
        store.commit(prepared)
        store.advance(prepared)
        hashes[height] = store.head.app_hash
    taken = Snapshots(directory / "snapshots", 1)
    taken.take(store.past(HEIGHT))
    answers = []
    for key in (THERE, GONE):
        with store.past(HEIGHT) as past:
            proof = past.prove(key)
        steps = [ledger_pb2.ProofStep(key=s.key, total=s.total, index=s.index, aunts=s.aunts) for s in proof.steps]
        answers.append(
            ledger_pb2.GetProofResponse(
                value=proof.value,
                listing=proof.listing,
                height=HEIGHT,
                steps=steps,
                signed_header=json.dumps(signed_header(HEIGHT + 1, hashes[HEIGHT])).encode(),
                validators=json.dumps(validators()).encode(),
            )
        )
    made = [exporting.bundle(key, answer) for key, answer in zip((THERE, GONE), answers, strict=True)]
    chunks = [taken.chunk(HEIGHT, index) for index in range(CHUNKS)]
    core, empty = _core(store, taken), _core(Store(directory / "empty"), taken)
    return Scenery(core, empty, chunks, hashes[HEIGHT], made, answers, directory)


def _core(store: Store, taken: Snapshots) -> Core:
    verdicts = Verdicts(verifier.Verifier())
    return Core(store, verdicts, Pool(), Metrics(CollectorRegistry()), taken)


@cache
def truth() -> frozenset[Shown]:
    """All that the scenery's signers ever signed about its two keys."""
    return frozenset(check(each) for each in scenery().bundles)


def told(error: Exception) -> None:
    """A refusal has a sentence."""
    assert str(error)


def _checked(document: Any) -> None:
    try:
        shown = check(document)
    except BundleRefused as refusal:
        told(refusal)
        return
    if shown.validators_hash == bundles.validators_hash(validators()):
        assert shown in truth(), f"SHOWN, but never signed: {shown}"


def bundle(data: bytes) -> None:
    """What hypermesh-verify reads: whatever it shows with the signers' set is what they signed."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):  # as its main does
        return
    _checked(document)


def proof_response(data: bytes) -> None:
    """A ledger's answer to GetProof, as the exporter and the plugin make a bundle of it."""
    answer = ledger_pb2.GetProofResponse()
    try:
        answer.ParseFromString(data)
    except DecodeError:
        return
    for key in (THERE, GONE):
        try:
            made = exporting.bundle(key, answer)
        except exporting.ERRORS as error:
            told(error)
            continue
        _checked(json.loads(json.dumps(made)))


def snapshot_chunk(data: bytes) -> None:
    """A chunk from a peer, its number in the first byte: nothing is taken for a chunk but that chunk's contents."""
    if not data:
        return
    index, body = data[0] % CHUNKS, data[1:]
    try:
        found = check_chunk(body, index, CHUNKS, scenery().app_hash)
    except ChunkRefused as refused:
        told(refused)
        return
    assert found == check_chunk(scenery().chunks[index], index, CHUNKS, scenery().app_hash)


def state_sync(data: bytes) -> None:
    """Any requests of state sync: an empty state takes nothing that the app hash does not vouch for."""
    empty = scenery().empty
    for kind in (abci.RequestOfferSnapshot, abci.RequestApplySnapshotChunk, abci.RequestLoadSnapshotChunk):
        with contextlib.suppress(DecodeError):
            request = kind.FromString(data)
            name = request.DESCRIPTOR.name.removeprefix("Request")
            name = "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")
            loop().run_until_complete(METHODS[name](empty, request))
    assert empty.store.head.height == 0
    loop().run_until_complete(METHODS["load_snapshot_chunk"](empty, abci.RequestLoadSnapshotChunk(height=HEIGHT)))


def abci_query(data: bytes) -> None:
    """A query of CometBFT's RPC: an answer, whatever is asked."""
    for request in (
        _parsed(data),
        abci.RequestQuery(path="/store/ledger/key", data=data),
        abci.RequestQuery(path="/store/ledger/key", data=data, prove=True),
        abci.RequestQuery(path="/store/ledger/key", data=data, height=HEIGHT),
    ):
        answer = loop().run_until_complete(query(scenery().core, request))
        assert answer.code == 0 or answer.log


def _parsed(data: bytes) -> abci.RequestQuery:
    request = abci.RequestQuery()
    with contextlib.suppress(DecodeError):
        request.ParseFromString(data)
    return request


def peer(data: bytes) -> None:
    """Another ledger's answer: a genesis of our federation that a home can begin with, or HomeMismatch."""
    answer = ledger_pb2.PeerResponse()
    with contextlib.suppress(DecodeError):
        answer.ParseFromString(data)
    peering._plausible(answer)
    for own in (joining.Own(0, False, False), joining.Own(5, True, False)):
        step = joining.decide(own, {"ledger-1": answer}, 1, False, 99.0)
        assert not isinstance(step, joining.Restore) or len(step.heights) <= joining.TRIED
    for document in (answer.genesis, data):
        try:
            found = peering.checked("ledger-1", document, ROOT)
            _begin(found)
        except (HomeMismatch, GenesisInvalid) as error:
            told(error)


def _begin(document: dict[str, Any]) -> None:
    directory = scenery().directory / "home"
    key = directory / "config" / "priv_validator_key.json"
    if not key.exists():
        key.parent.mkdir(parents=True)
        (directory / "data").mkdir()
        (directory / "data" / "priv_validator_state.json").write_text("{}")
        validator_key.write_validator_key(key)
    (directory / "config" / "genesis.json").unlink(missing_ok=True)
    network = home.Network("[::1]:26656", "", document)
    chain_id = home.prepare(directory, None, make_genesis(ROOT, DEMO), network)
    assert chain_id == json.loads((directory / "config" / "genesis.json").read_text())["chain_id"]


def genesis(data: bytes) -> None:
    """The app_state of a genesis file: it makes a first state, or GenesisInvalid."""
    with contextlib.suppress(GenesisInvalid):
        assert len(initial_state(CHAIN, data)) == 2
    with contextlib.suppress(GenesisInvalid, UnicodeDecodeError):
        genesis_of(data.decode())


def key_files(data: bytes) -> None:
    """The validator's and the node's key file, damaged: a sentence, not a traceback."""
    path = scenery().directory / "key.json"
    path.write_bytes(data)
    with contextlib.suppress(HomeMismatch):
        public, private = validator_key.signer(path)
        assert private.public_key().public_bytes_raw() == public
    with contextlib.suppress(HomeMismatch):
        assert len(node_key.node_id(path)) == 40


PARAMETERS = DEMO.SerializeToString(deterministic=True)


def verifier_frames(data: bytes) -> None:
    """Both directions of the verifier's pipe: frames of strangers' proofs, and any bytes for an answer."""
    kinds: dict[int, type[Message]] = {
        proofs_pb2.PROOF_KIND_SPACE: proofs_pb2.SpaceProof,
        proofs_pb2.PROOF_KIND_TIME: proofs_pb2.TimeProof,
    }
    for kind, message in kinds.items():
        try:
            proof = message.FromString(data).SerializeToString(deterministic=True)  # as the application sends it
        except DecodeError:
            continue
        asked = verifier._frame(Proof(kind, bytes(32), bytes(32), proof, PARAMETERS))
        answers = io.BytesIO()
        verifier._serve(io.BytesIO(asked), answers)
        said = loop().run_until_complete(_read(answers.getvalue()))
        assert said is not None
        assert isinstance(said[0], Reason)
        assert said[1]
    verifier._serve(io.BytesIO(data[: verifier._PARTS.size - 1]), io.BytesIO())
    with contextlib.suppress(asyncio.IncompleteReadError, OSError):
        loop().run_until_complete(_read(data))


async def _read(data: bytes) -> tuple[Reason, str] | None:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return await verifier.read_answer(reader)


def trust_document(data: bytes) -> None:
    """ConfigMap hypermesh-trust, whose parts must be one federation's."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(document, dict) or not all(isinstance(each, str) for each in document.values()):
        return  # the API server holds no such ConfigMap
    with contextlib.suppress(TrustInvalid):
        trust = Trust.decode(document)
        assert Trust.decode(trust.encode()) == trust


LEDGER_TARGETS = {
    target.__name__: target
    for target in (
        bundle,
        proof_response,
        snapshot_chunk,
        state_sync,
        abci_query,
        peer,
        genesis,
        key_files,
        verifier_frames,
        trust_document,
    )
}


def ledger_seeds() -> dict[str, list[bytes]]:
    """One good input of each form."""
    made, chunks = scenery(), scenery().chunks
    answered = make_genesis(ROOT, DEMO)
    begun = {"chain_id": "hypermesh-0", "app_state": app_state(answered), "validators": []}
    begun["chain_id"] = f"{chain_id_of(ROOT)}-00"
    document = json.dumps(begun).encode()
    peer_answer = ledger_pb2.PeerResponse(genesis=document, node_id="ab" * 20, p2p_port=26656, height=9)
    offered = abci.Snapshot(height=HEIGHT, format=snapshots.FORMAT, chunks=CHUNKS, hash=bytes(32))
    offer = abci.RequestOfferSnapshot(snapshot=offered, app_hash=made.app_hash)
    key = made.directory / "good.json"
    key.unlink(missing_ok=True)
    validator_key.write_validator_key(key)
    node = made.directory / "node.json"
    node_key.node_id(node)
    reason = Reason.SpaceProofInvalid.encode()
    trust = {
        "root.pub": "",
        "ca.crt": "x",
        "federation": "00" * 5,
        "cluster": "1",
        "prefix": "fd00::/64",
        "clusterUID": "u",
    }
    return {
        "bundle": [json.dumps(each).encode() for each in made.bundles],
        "proof_response": [each.SerializeToString(deterministic=True) for each in made.answers],
        "snapshot_chunk": [bytes([index]) + chunks[index] for index in (0, 7)],
        "state_sync": [
            offer.SerializeToString(),
            abci.RequestApplySnapshotChunk(index=7, chunk=chunks[7], sender="p").SerializeToString(),
        ],
        "abci_query": [
            abci.RequestQuery(path="/store/ledger/key", data=THERE, height=2, prove=True).SerializeToString(),
            THERE,
            GONE,
            b"\0B\x01\x02",
        ],
        "peer": [peer_answer.SerializeToString(), document],
        "genesis": [json.dumps(app_state(answered)).encode(), app_state(answered)["genesis"].encode()],
        "key_files": [key.read_bytes(), node.read_bytes()],
        "verifier_frames": [
            proofs_pb2.SpaceProof(k=18, answers=[proofs_pb2.SpaceAnswer(proof=bytes(144))]).SerializeToString(),
            proofs_pb2.TimeProof(iterations=50_000, output=bytes(200)).SerializeToString(),
            struct.pack(">2I", len(reason), 4) + reason + b"text",
        ],
        "trust_document": [json.dumps(trust).encode()],
    }
