"""The offline verifier on bundles of random states, signed by real ML-DSA keys: only unchanged ones pass."""

from __future__ import annotations

import base64
import copy
import json
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from hypermesh.v1 import ledger_pb2
from hypermesh_ledger import commitment, exporting
from hypermesh_ledger.store import Store
from hypermesh_verify import bundles, main
from hypermesh_verify.bundles import BundleRefused, check

Bundle = dict[str, Any]
KEYS = [b"node/%d" % n for n in range(300)]
TIME = "2026-01-02T03:04:05.06789Z"
NOTHING = {"hash": "", "parts": {"total": 0, "hash": ""}}


@cache
def signers() -> list[MLDSA65PrivateKey]:
    return [MLDSA65PrivateKey.generate() for _ in range(4)]


def validators() -> list[dict[str, Any]]:
    publics = [base64.b64encode(key.public_key().public_bytes_raw()).decode() for key in signers()]
    return [{"pub_key": {"type": bundles.KEY_TYPE, "value": each}, "voting_power": "10"} for each in publics]


def signed_header(height: int, app_hash: bytes, absent: tuple[int, ...] = (3,)) -> dict[str, Any]:
    """Header and commit as CometBFT's RPC gives them, without what it repeats."""
    header = {
        "version": {"block": "11", "app": "1"},
        "chain_id": "hypermesh-test",
        "height": str(height),
        "time": TIME,
        "last_block_id": NOTHING,
        "app_hash": app_hash.hex(),
        "proposer_address": "07" * 20,
        "validators_hash": bundles.validators_hash(validators()).hex(),
        **{
            f"{name}_hash": f"{n:02x}" * 32
            for n, name in enumerate(
                ("last_commit", "data", "next_validators", "consensus", "last_results", "evidence")
            )
        },
    }
    block_id = {"hash": bundles.header_hash(header).hex(), "parts": {"total": 1, "hash": "ab" * 32}}
    commit: dict[str, Any] = {"height": str(height), "round": 1, "block_id": block_id, "signatures": []}
    for index, key in enumerate(signers()):
        if index in absent:
            commit["signatures"].append({"block_id_flag": 1})
            continue
        signature = key.sign(vote(header["chain_id"], commit))
        vote_of = {"block_id_flag": 2, "timestamp": TIME, "signature": base64.b64encode(signature).decode()}
        commit["signatures"].append(vote_of)
    return {"header": header, "commit": commit}


def vote(chain_id: str, commit: dict[str, Any]) -> bytes:
    """A precommit's bytes, as FIPS 204 signs them for CometBFT (canonical.proto, with its length before it)."""
    body = bundles._field(1, 2) + bundles._fixed(2, int(commit["height"])) + bundles._fixed(3, commit["round"])
    body += bundles._field(4, bundles._block_id(commit["block_id"]))
    body += bundles._message(5, bundles._timestamp(TIME)) + bundles._field(6, chain_id.encode())
    return bundles._varint(len(body)) + body


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Two heights of a random state in which buckets have neighbours; `KEYS` are partly there."""
    store, chance = Store(tmp_path_factory.mktemp("state")), random.Random(3)
    crowd = [b"other/%d" % n for n in range(20_000)]
    for height in (1, 2):
        writes = {key: chance.randbytes(chance.randrange(1, 50)) for key in [*chance.sample(KEYS, 150), *crowd]}
        prepared = store.prepare(height, height, dict(writes))
        store.commit(prepared)
        store.advance(prepared)
    yield store
    store.close()


def make(store: Store, key: bytes, **terms: Any) -> Bundle:
    """What `hypermesh-ledger prove` writes."""
    with store.past(2) as past:
        proof = past.prove(key)
    steps = [ledger_pb2.ProofStep(key=s.key, total=s.total, index=s.index, aunts=s.aunts) for s in proof.steps]
    answer = ledger_pb2.GetProofResponse(
        value=proof.value,
        listing=proof.listing,
        height=2,
        steps=steps,
        signed_header=json.dumps(signed_header(3, store.head.app_hash, **terms)).encode(),
        validators=json.dumps(validators()).encode(),
    )
    return exporting.bundle(key, answer)


@settings(deadline=None, max_examples=60)
@given(key=st.sampled_from(KEYS))
def test_random_states_are_shown(store: Store, key: bytes) -> None:
    shown = check(make(store, key))
    assert (shown.key, shown.value, shown.height) == (key, store.snapshot.get(key), 2)
    assert shown.validators_hash == bundles.validators_hash(validators())


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(each, (*path, key))
    elif value not in (None, ""):
        yield path


def changed(value: Any, chance: random.Random) -> Any:
    """One bit of what the text stands for; text of no code gets another character."""
    if isinstance(value, int):
        return value ^ 1 << chance.randrange(20)
    for decode, encode in ((bytes.fromhex, bytes.hex), (decode64, encode64)):
        try:
            data = bytearray(decode(value))
        except ValueError:
            continue
        if len(data) > 4:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            return encode(bytes(data))
    at = chance.randrange(len(value))
    return value[:at] + chance.choice([c for c in "0123456789xyz" if c != value[at]]) + value[at + 1 :]


def decode64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def encode64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@settings(deadline=None, max_examples=400)
@given(key=st.sampled_from(KEYS), chance=st.randoms(use_true_random=False))
def test_any_flipped_bit_is_refused(store: Store, key: bytes, chance: random.Random) -> None:
    bundle = make(store, key)
    absentee = ("signed_header", "commit", "signatures", 3, "block_id_flag")  # why it did not vote means nothing
    path = chance.choice([place for place in places(bundle) if place != absentee])
    forged = copy.deepcopy(bundle)
    place = forged
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = changed(place[path[-1]], chance)
    assert forged != bundle, path
    with pytest.raises(BundleRefused):
        check(forged)


@settings(deadline=None, max_examples=100)
@given(key=st.sampled_from(KEYS), other=st.sampled_from(KEYS), chance=st.randoms(use_true_random=False))
def test_no_absence_of_what_is_there(store: Store, key: bytes, other: bytes, chance: random.Random) -> None:
    """All that the store itself gives out, the bucket's own listing with and without the key, another's listing."""
    if store.snapshot.get(key) is None:
        return
    honest = make(store, key)
    bucket = commitment.bucket_of(key)
    with store.past(2) as past:
        proof = past.prove(commitment.LISTING + bucket)
        elsewhere = past.prove(commitment.LISTING + commitment.bucket_of(other))
    entry = bytes([len(key)]) + key
    at = proof.listing.index(entry)
    without = proof.listing[:at] + proof.listing[at + len(entry) + 32 :]
    cut = proof.listing[: chance.randrange(len(proof.listing))]
    for listing, steps in (
        (proof.listing, proof.steps),
        (without, proof.steps),
        (cut, proof.steps),
        (elsewhere.listing, elsewhere.steps),
        (elsewhere.listing, proof.steps),
    ):
        forged = {**honest, "value": None, "listing": encode64(listing)}
        forged["steps"] = [
            {"key": s.key.hex(), "total": s.total, "index": s.index, "aunts": [a.hex() for a in s.aunts]} for s in steps
        ]
        with pytest.raises(BundleRefused):
            check(forged)


def test_no_presence_of_what_is_not_there(store: Store) -> None:
    present, absent = (next(k for k in KEYS if (store.snapshot.get(k) is None) is gone) for gone in (False, True))
    honest, other = make(store, absent), make(store, present)
    for forged in (
        {**honest, "value": honest["listing"], "listing": None},
        {**other, "key": absent.hex()},
        {**other, "key": absent.hex(), "steps": [{**other["steps"][0], "key": absent.hex()}, *other["steps"][1:]]},
        {**other, "key": "", "steps": other["steps"][1:]},
    ):
        with pytest.raises(BundleRefused):
            check(forged)


@pytest.mark.parametrize("absent", [(2, 3), (0, 1, 2, 3)])
def test_two_thirds_are_not_enough(store: Store, absent: tuple[int, ...]) -> None:
    with pytest.raises(BundleRefused, match="2/3 have not signed"):
        check(make(store, KEYS[0], absent=absent))


def test_a_vote_is_counted_once(store: Store) -> None:
    bundle = make(store, KEYS[0], absent=(2, 3))
    votes = bundle["signed_header"]["commit"]["signatures"]
    votes[2] = votes[0]
    with pytest.raises(BundleRefused, match="does not hold"):
        check(bundle)
    bundle["validators"][2] = bundle["validators"][0]
    with pytest.raises(BundleRefused, match="not the header's validators"):
        check(bundle)


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_anything_else_is_refused_by_a_sentence(noise: Any) -> None:
    with pytest.raises(BundleRefused):
        check(noise)


def test_the_command_needs_to_be_told_whom_to_trust(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bundle").write_text(json.dumps(make(store, KEYS[0])))
    owners = [{"address": f"{n:02x}", "power": "10", "pub_key": each["pub_key"]} for n, each in enumerate(validators())]
    for chain in ("hypermesh-test", "another"):
        (tmp_path / chain).write_text(json.dumps({"chain_id": chain, "validators": owners[::-1]}))
    bundle, trusted = str(tmp_path / "bundle"), bundles.validators_hash(validators()).hex()
    assert main.main([bundle]) == 3
    assert main.main([bundle, "--validators", trusted]) == 0
    assert main.main([bundle, "--validators", "00"]) == 1
    assert main.main([bundle, "--genesis", str(tmp_path / "hypermesh-test")]) == 3
    assert main.main([bundle, "--genesis", str(tmp_path / "another")]) == 1
    assert main.main([bundle, "--genesis", bundle]) == 1
    assert main.main([bundle, "--key", "00"]) == 1
    assert main.main([str(tmp_path / "nothing")]) == 1
    assert "REFUSED: [Errno 2]" in capsys.readouterr().out


def test_a_founder_alone_shows_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four validators by now; who founded the chain alone signs a header of any state, with the set of the genesis."""
    now = bundles.validators_hash(validators()).hex()
    founder = signers()[:1]
    monkeypatch.setitem(globals(), "signers", lambda: founder)
    (tmp_path / "forged").write_text(json.dumps(make(store, KEYS[0], absent=())))
    owner = {"address": "00", "power": "10", "pub_key": validators()[0]["pub_key"]}
    (tmp_path / "genesis").write_text(json.dumps({"chain_id": "hypermesh-test", "validators": [owner]}))
    forged = str(tmp_path / "forged")
    assert main.main([forged, "--genesis", str(tmp_path / "genesis")]) == 3
    output = capsys.readouterr().out
    assert "never changed since" in output
    assert "SHOWN" not in output
    assert main.main([forged, "--validators", now]) == 1


def test_one_content_has_one_text(store: Store) -> None:
    """The bits that base64's padding leaves over are no place for another text of the same value."""
    bundle = make(store, KEYS[0])
    for text, other in (("QQ==", "QR=="), ("QUE=", "QUF=")):
        assert base64.b64decode(text) == base64.b64decode(other)
        with pytest.raises(BundleRefused, match="bits left over"):
            check(bundle | {"value": other})
