"""Who signed the newest blocks, as people and Prometheus see it; and which refusals are proof failures."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from hypermesh.refusals import Reason
from hypermesh_ledger.metrics import PROOFS, Metrics, proof_of
from hypermesh_ledger.presence import WINDOW, Attendant, Presence

A, B = b"a" * 20, b"b" * 20


def test_signed_of_counted_within_the_window_only() -> None:
    presence = Presence()
    presence.note(0, [])
    assert presence.standings() == []
    for number in range(WINDOW + 50):
        presence.note(0, [Attendant(A, 10, True), Attendant(B, 10, number >= WINDOW)])
    first, second = presence.standings()
    assert (first.signed_blocks, first.counted_blocks) == (WINDOW, WINDOW)
    assert (second.signed_blocks, second.counted_blocks, second.signed_last) == (50, WINDOW, True)


def test_a_newcomer_is_counted_from_its_first_block_and_who_left_is_not_listed() -> None:
    presence = Presence()
    presence.note(0, [Attendant(A, 10, True)])
    presence.note(3, [Attendant(B, 10, False)])
    (only,) = presence.standings()
    assert (only.address, only.signed_blocks, only.counted_blocks, presence.round) == (B, 0, 1, 3)


def test_metrics_follow_the_validators_and_count_rounds() -> None:
    registry = CollectorRegistry()
    metrics, presence = Metrics(registry), Presence()
    for attendants, decided in (([Attendant(A, 10, True), Attendant(B, 10, False)], 2), ([Attendant(A, 10, True)], 0)):
        presence.note(decided, attendants)
        metrics.decided(decided, presence.standings())
    value = registry.get_sample_value
    assert value("hypermesh_ledger_extra_rounds_total") == 2
    assert value("hypermesh_ledger_validators") == value("hypermesh_ledger_validators_present") == 1
    assert value("hypermesh_ledger_validator_signed_ratio", {"validator": A.hex()}) == 1
    assert value("hypermesh_ledger_validator_signed_ratio", {"validator": B.hex()}) is None


def test_refusals_for_a_proof_or_its_ticket_are_proof_failures() -> None:
    assert proof_of(Reason.SpaceProofInvalid) == "space"
    assert proof_of(Reason.StakeTicketStale) == "stake"
    assert proof_of(Reason.WorkTicketMissing) == "work"
    assert proof_of(Reason.TimeProofInvalid) == "time"
    assert proof_of(Reason.MemoryTicketStale) == proof_of(Reason.MemoryLate) == "space"
    assert proof_of(Reason.NoSuchAsset) is None
    assert proof_of(Reason.MemoryNotShown) is None, "asked for too much: no proof failed"
    found = {proof_of(reason) for reason in Reason}
    assert found == {None, *PROOFS}
    registry = CollectorRegistry()
    Metrics(registry).refused(Reason.WorkTicketStale, "block")
    labels = {"proof": "work", "where": "block"}
    assert registry.get_sample_value("hypermesh_ledger_proof_failures_total", labels) == 1
