"""A lone proposer leaves gaps for who is behind, and no more of them than nobody minds."""

from __future__ import annotations

import pytest

from hypermesh_ledger import home
from hypermesh_ledger.laggards import GAP_S, HOLD_S, MOST, NEAR, Laggards

OWN = 1_000


@pytest.mark.parametrize(
    ("height", "behind"), [(0, False), (1, False), (OWN - NEAR, True), (OWN - 2, True), (OWN - 1, False), (OWN, False)]
)
def test_who_is_behind(height: int, behind: bool) -> None:
    laggards = Laggards()
    laggards.told(height, OWN, 5.0)
    assert laggards.holds(5.0) is behind
    assert not laggards.holds(5.0 + HOLD_S), "it asks again while it is"


def test_strangers_make_a_block_a_second_at_most() -> None:
    laggards = Laggards()
    blocks = 0
    for tenth in range(20 * MOST):
        laggards.told(OWN - 9, OWN, tenth / 10)
        blocks += laggards.holds(tenth / 10)
    assert MOST < blocks <= 3 * MOST


def test_only_a_lone_ledger_that_others_may_join_has_gaps() -> None:
    gap = f'create_empty_blocks_interval = "{GAP_S * 1000:.0f}ms"'
    assert gap in home.configuration(home.Network("[::1]:1", "", None, several=False))
    assert gap not in home.configuration(home.Network("[::1]:1", "", None))
    assert gap not in home.configuration(None)
