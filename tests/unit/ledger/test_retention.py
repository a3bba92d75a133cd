"""What CometBFT is told to forget is never evidence any more, by CometBFT's own rule, and little is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypermesh.proofs.parameters import DEMO
from hypermesh.v1 import ledger_pb2
from hypermesh_ledger import home, retention
from hypermesh_ledger.retention import Retention, WithPeers
from hypermesh_ledger.snapshots import RESERVE_BYTES, Snapshots

paces = st.lists(
    st.tuples(st.integers(1, 1_500), st.sampled_from([0, 3, 20, 100, 1_000, 60_000])), min_size=1, max_size=6
)


@settings(deadline=None, max_examples=30)
@given(paces)
def test_only_expired_evidence_is_forgotten(paces: list[tuple[int, int]]) -> None:
    """The rule is IsEvidenceExpired of CometBFT's evidence/verify.go, on the parameters of our genesis."""
    validator = {"address": "", "pub_key": {}}
    terms = home._document("chain", ledger_pb2.Genesis(proofs=DEMO), validator)["consensus_params"]["evidence"]
    age_blocks, age_ms = int(terms["max_age_num_blocks"]), int(terms["max_age_duration"]) // 1_000_000
    kept, times, now = Retention(), {}, 1_000
    before = 0
    for blocks, pace_ms in paces:
        for _ in range(blocks):
            now += pace_ms
            height = len(times) + 1
            times[height] = now
            lowest = kept.after(height, now)
            assert before <= lowest <= height
            for gone in range(max(before, 1), lowest):
                assert height - gone > age_blocks
                assert now - times[gone] > age_ms
            before = lowest


def test_what_is_kept_is_bounded() -> None:
    kept, lowest = Retention(), 0
    for height in range(1, 20_000):
        lowest = kept.after(height, height * 1_000)
    assert height - lowest <= retention.BLOCKS + 1
    assert len(kept._young) <= retention.BLOCKS + 1


def test_who_restores_a_snapshot_finds_the_blocks_after_it(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, 1)
    kept = WithPeers(snapshots)
    for height in range(1, 5_000):
        assert kept.after(height, height * 1_000) == 0, "without a snapshot nothing is forgotten"
    for held, lowest in (((3_000,), 3_000), ((3_000, 4_000), 3_000), ((4_000, 5_000), 3_999)):
        snapshots._heights = list(held)
        assert kept.after(5_000, 5_000_000) == lowest


@pytest.mark.parametrize("held", [[], [1_000]], ids=["no snapshot was ever written", "none after the first"])
def test_blocks_do_not_fill_the_volume_that_has_no_room_for_a_snapshot(
    tmp_path: Path, held: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots = Snapshots(tmp_path, 1_000)
    snapshots._heights = held
    kept = WithPeers(snapshots)
    assert [kept.after(height, height * 1_000) for height in range(1, 5_000)][-1] == (held[0] if held else 0)
    monkeypatch.setattr(snapshots, "free_bytes", lambda: RESERVE_BYTES - 1)
    assert kept.after(5_000, 5_000_000) == 5_000 - retention.BLOCKS - 1
