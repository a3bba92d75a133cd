"""`kubectl hypermesh ledger`: what each part makes of the ledger's answers; tests/integration has real ones."""

from __future__ import annotations

import argparse
import hashlib
from typing import Any

import pytest

from hypermesh import falcon, operations
from hypermesh.refusals import Reason
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2, votes_pb2
from hypermesh_clients.mirror import View
from kubectl_hypermesh.ledger import export, messages, places, proofs, status, tx, validators
from kubectl_hypermesh.ledger.reach import choose
from kubectl_hypermesh.main import build_parser
from kubectl_hypermesh.options import CommandError

from ...builders import Member, TrustRoot, member

NOW_MS = 1_800_000_000_000


@pytest.fixture(scope="module")
def node() -> Member:
    return member(TrustRoot(), trust_pb2.ROLE_NODE, "node-1")


def pod(name: str, phase: str = "Running", ready: str = "True") -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": ready}]
    return {"metadata": {"name": name}, "status": {"phase": phase, "conditions": conditions}}


# -- reach -----------------------------------------------------------------------------------------------------


def test_a_ready_pod_is_asked_before_one_that_only_runs() -> None:
    assert choose([pod("l-0", ready="False"), pod("l-1")], None) == "l-1"
    assert choose([pod("l-0", ready="False"), pod("l-1", "Pending")], None) == "l-0"
    assert choose([pod("l-0"), pod("l-1")], "l-1") == "l-1"


def test_without_a_running_pod_the_message_says_what_there_is() -> None:
    with pytest.raises(CommandError, match=r"no ledger runs \(l-0 Pending\)"):
        choose([pod("l-0", "Pending")], None)
    with pytest.raises(CommandError, match="no pod at all"):
        choose([], None)
    with pytest.raises(CommandError, match="l-9 is no running ledger"):
        choose([pod("l-0")], "l-9")


# -- status ----------------------------------------------------------------------------------------------------


def inspected(**changes: Any) -> ledger_pb2.InspectResponse:
    genesis = ledger_pb2.Genesis(proofs=proofs_pb2.ProofParameters(epoch_ms=60_000))
    found = ledger_pb2.InspectResponse(
        status=ledger_pb2.StatusResponse(
            chain_id="hypermesh-x",
            height=42,
            block_time_ms=NOW_MS - 2_000,
            epoch=ledger_pb2.Epoch(number=7, started_ms=NOW_MS - 30_000),
            genesis=genesis,
            mempool=3,
        ),
        version="0.1.0",
        consensus_height=43,
        earliest_height=1,
        standings=[ledger_pb2.Standing(power=10, signed_blocks=9, counted_blocks=10, signed_last=True)] * 3,
    )
    found.standings.add(power=10, counted_blocks=10)
    found.pool.add(**{"class": "first", "transactions": 3})
    found.MergeFrom(ledger_pb2.InspectResponse(**changes))
    return found


def test_status_counts_who_signed_and_how_old_the_chain_is() -> None:
    summary = status.summarize(inspected(), "l-0", [pod("l-0"), pod("l-1", ready="False")], NOW_MS)
    assert summary["validators"] == {"present": 3, "total": 4}
    assert (summary["blockAgeSeconds"], summary["epoch"]["ageSeconds"], summary["ready"]) == (2, 30, True)
    assert summary["pods"] == {"ready": 1, "total": 2}
    text = status.render(summary)
    assert "3 of 4 signed" in text
    assert "3 operations (3 first)" in text
    assert "Rounds" not in text
    assert "Consensus" not in text


def test_status_tells_of_rounds_standstill_and_unreadiness() -> None:
    found = inspected(round=2, consensus_round=5, not_ready=["chain: no block for 60 s", "certificate: expired"])
    text = status.render(status.summarize(found, None, [], NOW_MS + 60_000))
    assert "the last block took 3 rounds" in text
    assert "block 43 in round 5, 0 peers connected" in text
    assert "no: chain: no block for 60 s\n" in text
    assert text.endswith("        no: certificate: expired")
    assert "62s ago" in text


def test_a_dead_engine_is_named() -> None:
    found = inspected()
    found.consensus_height = 0
    assert "CometBFT does not answer" in status.render(status.summarize(found, None, [], NOW_MS))


# -- validators ------------------------------------------------------------------------------------------------


def test_seats_founders_and_liars_are_told_apart() -> None:
    seat = ledger_pb2.ValidatorRecord(
        seat=b"s" * 32,
        holder=b"h" * 32,
        subject="hypermesh-ledger-1",
        consensus_key=b"key",
        state=ledger_pb2.VALIDATOR_STATE_EXPELLED,
        joined_height=9,
    )
    gone = validators.summarize(ledger_pb2.ValidatorsResponse(validators=[seat]), [], {})[0]["address"]
    evidence = ledger_pb2.Evidence(
        address=bytes.fromhex(gone), kind=ledger_pb2.MISBEHAVIOR_KIND_DUPLICATE_VOTE, height=77
    )
    answer = ledger_pb2.ValidatorsResponse(validators=[seat], evidence=[evidence])
    founder = ledger_pb2.Standing(address=b"f" * 20, power=10, signed_blocks=98, counted_blocks=100)
    listed = validators.summarize(answer, [founder], {b"h" * 32: 4_000})
    lines = validators.render(listed, wide=False).splitlines()
    assert lines[1].split("   ")[0] == validators.FOUNDER
    assert "98 of 100" in lines[1]
    assert lines[2].split() == [
        "hypermesh-ledger-1",
        "Expelled",
        "0",
        "9",
        "-",
        "4000",
        "duplicate",
        "vote",
        "at",
        "77",
    ]
    assert gone in validators.render(listed, wide=True)


# -- tx --------------------------------------------------------------------------------------------------------


def signed(node: Member) -> bytes:
    operation = ledger_pb2.Operation(chain_id="c", valid_until_ms=NOW_MS, commit_work=ledger_pb2.CommitWork(epoch=5))
    return operations.build(operation, node.keypair.public, node.keypair.secret)


def body_of(node: Member) -> trust_pb2.CertificateBody:
    return trust_pb2.CertificateBody.FromString(node.certificate.body)


def record(envelope: bytes, **changes: Any) -> ledger_pb2.TransactionRecord:
    base: dict[str, Any] = {"tx_hash": operations.tx_hash(envelope), "height": 3, "time_ms": NOW_MS, "known": True}
    return ledger_pb2.TransactionRecord(envelope=envelope, **{**base, **changes})


def test_a_signature_is_verified_against_the_key_that_the_envelope_names(node: Member) -> None:
    envelope = signed(node)
    about = tx.describe(record(envelope), body_of(node))
    assert (about["result"], about["kind"], about["signature"]) == ("Committed", "commit_work", "verified")
    assert about["operation"] == {"epoch": 5}
    assert "node-1 (node)" in tx.render(about)
    assert tx.describe(record(envelope), None)["signature"].startswith("not checked")
    other = body_of(node)
    other.subject_key = falcon.generate().public
    assert tx.describe(record(envelope), other)["signature"].startswith("INVALID: the key")


def test_a_forged_signature_and_swapped_bytes_are_seen(node: Member) -> None:
    outer = ledger_pb2.Envelope.FromString(signed(node))
    changed = ledger_pb2.Operation.FromString(outer.operation)
    changed.commit_work.epoch = 6
    outer.operation = operations.canonical(changed)
    forged = operations.canonical(outer)
    assert tx.describe(record(forged), body_of(node))["signature"] == "INVALID: it does not cover these bytes"
    lied = record(signed(node), tx_hash=b"\0" * 32)
    assert "other bytes" in tx.describe(lied, body_of(node))["signature"]
    assert "no operation" in tx.describe(record(b"\xff"), None)["signature"]


def test_a_refusal_comes_with_its_remedy_and_a_lost_outcome_is_no_success(node: Member) -> None:
    refused = tx.describe(record(signed(node), reason="NoSuchAsset", message="None of id 00."), body_of(node))
    assert (refused["result"], refused["remedy"]) == ("Refused", Reason.NoSuchAsset.remedy)
    assert Reason.NoSuchAsset.remedy in tx.render(refused)
    assert tx.describe(record(signed(node), reason="OfTomorrow"), None)["remedy"] == ""
    assert tx.describe(record(signed(node), known=False), None)["result"] == "Unknown"


async def test_what_a_lying_ledger_shows_is_no_traceback(node: Member) -> None:
    torn = ledger_pb2.EnrolNode(certificate=trust_pb2.Certificate(body=b"\xff" * 9))
    operation = ledger_pb2.Operation(chain_id="c", valid_until_ms=(1 << 63) - 1, enrol_node=torn)
    envelope = operations.build(operation, node.keypair.public, node.keypair.secret)
    nobody: Any = None
    assert await tx.signer_of(nobody, envelope) is None
    about = tx.describe(record(envelope, reason="CertificateInvalid"), None)
    assert about["validUntil"] == f"{(1 << 63) - 1} ms"
    assert "CertificateInvalid" in tx.render(about)


def test_a_block_is_one_row_a_transaction(node: Member) -> None:
    block = ledger_pb2.BlockResponse(height=3, transactions=[record(signed(node)), record(b"\xff", reason="Malformed")])
    lines = tx.render_block(block).splitlines()
    assert [line.split()[0] for line in lines] == ["PLACE", "0", "0"]
    assert lines[1].endswith("Committed")
    assert lines[2].endswith("Malformed")
    assert tx.render_block(ledger_pb2.BlockResponse(height=9)) == "Block 9 carries no transaction."


@pytest.mark.parametrize(
    "words",
    [
        *(["tx"], ["tx", "12"], ["tx", "zz" * 32], ["tx", "--height", "0"], ["tx", "--height", "9" * 30]),
        *(["export", "moon", "x"], ["export", "node", "x", "--height=-1"]),
    ],
)
def test_what_is_no_hash_height_or_kind_is_a_usage_error(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args(["ledger", *words])
    assert stop.value.code == 2


def test_messages_show_ids_addresses_and_lengths() -> None:
    asked = ledger_pb2.Allocate(
        asset_id=b"\xab" * 32,
        address=bytes.fromhex("fd" + "00" * 14 + "01"),
        privacy_level=ledger_pb2.PRIVACY_LEVEL_PUBLIC,
        amount=4,
    )
    assert messages.plain(asked) == {
        "assetId": "ab" * 32,
        "amount": 4,
        "privacyLevel": "PRIVACY_LEVEL_PUBLIC",
        "address": "fd00::1",
    }
    assert messages.plain(ledger_pb2.JoinValidator(consensus_key=b"k" * 1952)) == {"consensusKey": "1952 bytes"}


# -- proofs ----------------------------------------------------------------------------------------------------


def view_of(node: Member, *tickets: proofs_pb2.Ticket, epoch: int = 10) -> View:
    view = View()
    view.genesis.proofs.grace_epochs = 2
    view.epoch = ledger_pb2.Epoch(number=epoch)
    view.nodes[node.key_id] = ledger_pb2.NodeRecord(key_id=node.key_id, certificate=node.certificate, trust_score=5_000)
    for ticket in tickets:
        view.apply(ledger_pb2.Change(ticket=ticket))
    return view


def ticket(node: Member, kind: proofs_pb2.ProofKind, epoch: int, subject: bytes = b"") -> proofs_pb2.Ticket:
    return proofs_pb2.Ticket(
        kind=kind,
        node=node.key_id,
        subject=subject or node.key_id,
        epoch=epoch,
        issued_ms=NOW_MS - 5_000,
        hash=b"h" * 32,
    )


def test_freshness_is_the_epoch_and_the_grace_after_it(node: Member) -> None:
    kinds = (proofs_pb2.PROOF_KIND_SPACE, proofs_pb2.PROOF_KIND_TIME)
    view = view_of(node, ticket(node, kinds[0], 8), ticket(node, kinds[1], 7))
    summary = proofs.summarize(view, node.key_id, None, NOW_MS)
    fresh = {entry["proof"]: (entry["fresh"], entry.get("epochsLeft")) for entry in summary["tickets"]}
    assert (fresh["space"], fresh["time"]) == ((True, 0), (False, 0))
    assert summary["missing"] == ["work"]
    text = proofs.render(summary)
    assert "No work ticket" in text
    assert "yes, 0 more" in text


def test_an_asset_shows_only_its_own_devices_work_and_a_seed_waits_until_it_is_opened(node: Member) -> None:
    one, two = b"1" * 32, b"2" * 32
    work = proofs_pb2.PROOF_KIND_WORK
    view = view_of(node, ticket(node, work, 9, one), ticket(node, work, 9, two))
    view.work_seeds[node.key_id] = ledger_pb2.WorkSeed(node=node.key_id, epoch=10, height=55)
    summary = proofs.summarize(view, node.key_id, one, NOW_MS)
    assert [entry["subject"] for entry in summary["tickets"] if entry["proof"] == "work"] == [one.hex()]
    assert summary["seed"] == {"epoch": 10, "height": 55, "devices": 0}
    assert "in block 55" in proofs.render(summary)
    view.apply(ledger_pb2.Change(ticket=ticket(node, work, 10, one)))
    assert proofs.summarize(view, node.key_id, one, NOW_MS)["seed"] is None


def test_every_proof_kind_says_what_it_shows_and_what_not(node: Member) -> None:
    named = [name.removeprefix("PROOF_KIND_").lower() for name in proofs_pb2.ProofKind.keys()[1:]]
    assert set(proofs.MEANING) == set(named)
    with pytest.raises(CommandError, match="is not enrolled"):
        proofs.summarize(view_of(node), b"x" * 32, None, NOW_MS)


def test_bounds_are_shown_with_who_measured_and_what_holds() -> None:
    seats = ledger_pb2.ValidatorsResponse()
    record = votes_pb2.PlaceRecord()
    for number in range(5):
        key = bytes([number]) * 1952
        state = ledger_pb2.VALIDATOR_STATE_ACTIVE if number < 4 else ledger_pb2.VALIDATOR_STATE_LEFT
        seats.validators.add(subject=f"ledger-{number}", consensus_key=key, state=state)
        address = hashlib.sha256(key).digest()[:20]
        record.bounds.add(validator=address, microseconds=1_000 * (5 - number), epoch=10)
    assert places.summarize(votes_pb2.PlaceRecord(), seats, 10) is None
    assert places.render(None) == []
    summary = places.summarize(record, seats, 10)
    assert summary is not None
    assert [each["validator"] for each in summary["bounds"]] == [f"ledger-{n}" for n in (3, 2, 1, 0)]
    assert summary["believed"] == {"roundTripMicroseconds": 3_000, "farthestKilometres": 450}
    text = "\n".join(places.render(summary))
    assert "Placed: at most 450 km from a validator" in text
    assert "2.0 ms" in text
    del record.bounds[2:4]
    fewer = places.summarize(record, seats, 10)
    assert fewer is not None
    assert not fewer["placed"]
    assert "Not placed" in "\n".join(places.render(fewer))


# -- export ----------------------------------------------------------------------------------------------------


def test_whom_to_trust_goes_to_the_verifier() -> None:
    parse = build_parser().parse_args
    plain = parse(["ledger", "export", "key", "00"])
    assert export.checking(plain) == ()
    trusted = parse(["ledger", "export", "key", "00", "--validators", "ab"])
    assert export.checking(trusted) == ("--validators", "ab")
    with pytest.raises(SystemExit):
        parse(["ledger", "export", "key", "00", "--validators", "ab", "--genesis", "g"])


async def test_a_wrong_address_says_what_is_wanted() -> None:
    nobody: Any = argparse.Namespace(kube=None)
    with pytest.raises(CommandError, match="moon is not an IPv6 address"):
        await export.key_of(nobody, nobody, "address", "moon")
    with pytest.raises(CommandError, match="no Kubernetes is asked for names"):
        await export.key_of(nobody, nobody, "asset", "node-1-cpu-0")
