"""A block is as long as the ledger executes it in a tenth of a second."""

from __future__ import annotations

import pytest

from hypermesh_ledger.pace import AIM_S, AIM_WITH_PEERS_S, LEAST, Pace


@pytest.mark.parametrize("each_s", [0.000_1, 0.000_5, 0.001])
def test_blocks_come_to_take_the_time_aimed_at(each_s: float) -> None:
    pace = Pace()
    for _ in range(20):
        pace.took(pace.most(), pace.most() * each_s)
    assert pace.most() * each_s == pytest.approx(AIM_S, rel=0.02)


def test_a_slow_moment_does_not_stop_the_ledger_and_passes() -> None:
    pace = Pace()
    pace.took(10, 60)
    assert pace.most() == LEAST
    for _ in range(30):
        pace.took(LEAST, LEAST * 0.000_2)
    assert pace.most() == pytest.approx(AIM_S / 0.000_2, rel=0.02)


def test_short_blocks_say_little() -> None:
    """Consensus has a price a block, which one operation must not be charged with."""
    pace = Pace()
    for _ in range(20):
        pace.took(1, 0.005)
    assert pace.most() > 1_000
    before = pace.most()
    pace.took(0, 5)
    assert pace.most() == before


def test_blocks_of_several_validators_are_longer() -> None:
    pace = Pace()
    for _ in range(20):
        pace.took(LEAST, LEAST * 0.000_2)
    assert pace.most(4) == pytest.approx(AIM_WITH_PEERS_S / 0.000_2, rel=0.02)
    assert pace.most(4) > pace.most(1) == pace.most(0)
