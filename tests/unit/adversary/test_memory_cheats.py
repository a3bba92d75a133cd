"""Who hasn't the memory that it claims: each way to cheat is played against the real verifier, under many seeds.

The odds that the documentation states are (1 − q)^s for a share q of wrong answers; `-s` prints them beside what came.
"""

from __future__ import annotations

import hashlib

import pytest

from hypermesh.proofs import memory
from hypermesh.proofs.parameters import MEMORY_PRODUCTION
from hypermesh.v1.proofs_pb2 import MemoryParameters

from ...adversary.memories import Claim, Held, block

NODE, ASSET, C = b"n" * 32, b"a" * 32, b"c" * 32
SLABS = 64
TRIES = 100


def small(samples: int = MEMORY_PRODUCTION.samples) -> MemoryParameters:
    """Production's blocks, in smaller slabs."""
    params = MemoryParameters()
    params.CopyFrom(MEMORY_PRODUCTION)
    params.slab_bytes, params.samples = 1 << 20, samples
    return params


PARAMS = small()
BLOCKS = memory.blocks(SLABS, PARAMS)


def honest(number: int) -> bytes:
    return block(NODE, ASSET, number, PARAMS)


def missing(share: float) -> Held:
    """Every so-manieth block isn't there."""
    return lambda number: None if int(number * share) != int((number + 1) * share) else honest(number)


def seeds(count: int = TRIES) -> list[bytes]:
    return [hashlib.sha256(b"seed%d" % each).digest() for each in range(count)]


def claim(held: Held, c: bytes = C, slabs: int = SLABS, params: MemoryParameters = PARAMS) -> Claim:
    return Claim(NODE, ASSET, c, slabs, params, held)


def accepted(made: Claim, count: int = TRIES) -> int:
    return sum(made.passes(seed) for seed in seeds(count))


def told(name: str, passed: int, count: int, odds: float) -> None:
    print(f"{name}: {passed} of {count} accepted; odds {odds:.2g}")


def test_the_honest_always_pass() -> None:
    assert accepted(claim(honest)) == TRIES


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_a_missing_share_is_refused(share: float) -> None:
    passed = accepted(claim(missing(share)))
    told(f"{share:.0%} missing, s={PARAMS.samples}", passed, TRIES, (1 - share) ** PARAMS.samples)
    assert passed == 0


@pytest.mark.parametrize(("share", "samples"), [(0.1, 16), (0.25, 8), (0.5, 4)])
def test_the_odds_are_as_stated(share: float, samples: int) -> None:
    """Few samples, so that cheats do pass: as often as the formula says, within four standard deviations."""
    count, params = 600, small(samples)
    made = claim(missing(share), params=params)
    wrong = sum(missing(share)(number) is None for number in range(BLOCKS)) / BLOCKS
    odds = (1 - wrong) ** samples
    passed = accepted(made, count)
    told(f"{wrong:.1%} missing, s={samples}", passed, count, odds)
    assert abs(passed - odds * count) <= 4 * (count * odds * (1 - odds)) ** 0.5 + 1


def test_the_cut_that_broke_the_walk() -> None:
    """P parts begun side by side, all right but at P - 1 seams: a chain hid these, a part of the blocks can't hide.

    Who holds nothing and has time to make a sixteenth of the blocks again has fifteen parts that are wrong all through.
    """
    made_in_time = BLOCKS // 16
    passed = accepted(claim(lambda number: honest(number) if number < made_in_time else b"free" * (1 << 16)))
    told("one part of sixteen made in time", passed, TRIES, (1 / 16) ** PARAMS.samples)
    assert passed == 0


def test_every_answer_needs_its_own_block() -> None:
    """Fifteen of sixteen blocks right is what the cut left of a walk: 0.94 ** 264."""
    passed = accepted(claim(lambda number: honest(number) if number % 16 else None))
    told("one block of sixteen missing", passed, TRIES, (15 / 16) ** PARAMS.samples)
    assert passed == 0


def test_part_of_every_block_is_worth_less_than_that_part_of_the_blocks() -> None:
    """99 % of each block's labels: an answer reads 64 of them, so it is right with 0.99 ** 64 only."""
    kept = int(PARAMS.block_kib * 1024 * 0.99) // 64 * 64

    def most(number: int) -> bytes:
        whole = honest(number)
        return whole[:kept] + bytes(len(whole) - kept)

    full, cut = claim(honest), claim(most)
    right = sum(a == b for a, b in zip(full.levels[0], cut.levels[0], strict=True)) / BLOCKS
    told(f"99 % of each block: {right:.0%} of the answers right", accepted(cut), TRIES, right**PARAMS.samples)
    assert 0.35 < right < 0.70
    assert accepted(cut) == 0


@pytest.mark.parametrize(("node", "asset"), [(b"m" * 32, ASSET), (NODE, b"b" * 32)])
def test_what_was_filled_for_another_is_refused(node: bytes, asset: bytes) -> None:
    assert accepted(claim(lambda number: block(node, asset, number, PARAMS)), 10) == 0


def test_a_small_fill_claimed_as_a_large_one_is_refused() -> None:
    """The same half again, and the half with the answers it gave as a whole."""
    half = BLOCKS // 2
    assert accepted(claim(lambda number: honest(number % half))) == 0
    smaller = claim(honest, slabs=SLABS // 2)
    smaller.commitment.slabs = SLABS
    larger = claim(missing(1.0))
    larger.levels[0][:half] = smaller.levels[0]
    larger.levels = memory.tree(larger.levels[0])
    larger.commitment.root = larger.levels[-1][0]
    assert accepted(larger) == 0


def test_last_epochs_root_is_refused() -> None:
    old, new = claim(honest, c=b"o" * 32), claim(honest)
    new.levels = old.levels
    new.commitment.root = old.commitment.root
    assert accepted(new, 10) == 0


def test_right_answers_in_another_order_are_refused() -> None:
    turned = claim(honest)
    answers = turned.levels[0]
    turned.levels = memory.tree([*answers[1:], answers[0]])
    turned.commitment.root = turned.levels[-1][0]
    assert accepted(turned, 10) == 0


def test_a_path_to_another_block_is_refused() -> None:
    made, other = claim(honest), claim(honest)
    seed = seeds()[0]
    moved = made.proof(seed)
    moved.paths[0].CopyFrom(moved.paths[1])
    other.proof = lambda _: moved  # type: ignore[method-assign]
    assert made.passes(seed)
    assert not other.passes(seed)


def test_the_credit_is_what_nobody_passes_without() -> None:
    """With less than the credited bytes the odds are below 2 ** -40; with a thousandth more they are not."""
    shown = memory.shown_bytes(SLABS, PARAMS)
    share = shown / (SLABS * PARAMS.slab_bytes)
    told(f"{share:.1%} of a claim is credited", 0, 0, share**PARAMS.samples)
    assert share**PARAMS.samples <= 2**-memory.DOUBT_BITS < (share + 0.001) ** PARAMS.samples
    assert shown <= 0.9001 * SLABS * PARAMS.slab_bytes
