"""Network place, pure: what a session must show, and what bounds say although some validators lie."""

from __future__ import annotations

import pytest

from hypermesh import places
from hypermesh.places import PlaceUnproven, Round
from hypermesh.v1 import votes_pb2

SECRET = b"s" * 32
Bound = votes_pb2.PlaceRecord.Bound


def session(times: list[int] | None = None, secret: bytes = SECRET) -> list[Round]:
    times = times or [1_000 + number for number in range(places.ROUNDS)]
    challenges = [bytes([number]) * 32 for number in range(len(times))]
    return [Round(c, places.answer(secret, n, c), times[n]) for n, c in enumerate(challenges)]


def validator(number: int) -> bytes:
    return bytes([number]) * 20


def record(*bounds: tuple[int, int, int]) -> votes_pb2.PlaceRecord:
    """(validator, microseconds, epoch)"""
    made = [Bound(validator=validator(number), microseconds=us, epoch=epoch) for number, us, epoch in bounds]
    return votes_pb2.PlaceRecord(node=b"n" * 32, bounds=made)


def test_the_least_of_all_rounds_counts() -> None:
    times = [900_000] * places.ROUNDS
    times[7] = 321
    assert places.least_us(places.commitment(SECRET), SECRET, session(times)) == 321
    assert places.least_us(places.commitment(SECRET), SECRET, session([0] * places.ROUNDS)) == 1


@pytest.mark.parametrize("count", [0, 1, places.ROUNDS - 1, places.ROUNDS + 1])
def test_all_rounds_are_asked(count: int) -> None:
    with pytest.raises(PlaceUnproven, match="rounds"):
        places.least_us(places.commitment(SECRET), SECRET, session([5] * count) if count else [])


def test_every_answer_and_the_secret_must_be_right() -> None:
    committed = places.commitment(SECRET)
    for number in range(places.ROUNDS):
        for wrong in (b"", b"\0" * 32, session()[number].answer[:-1], session(secret=b"x" * 32)[number].answer):
            rounds = session()
            rounds[number] = Round(rounds[number].challenge, wrong, 5)
            with pytest.raises(PlaceUnproven, match=f"round {number} "):
                places.least_us(committed, SECRET, rounds)
    for secret in (b"", SECRET + b"\0", SECRET[:-1], b"t" * 32):
        with pytest.raises(PlaceUnproven, match="committed"):
            places.least_us(committed, secret, session(secret=secret))
    with pytest.raises(PlaceUnproven, match="no answer"):
        places.least_us(committed, SECRET, session([places.LONGEST_US + 1] * places.ROUNDS))


def test_an_answer_is_of_its_round_and_its_challenge() -> None:
    made = {places.answer(SECRET, number, challenge) for number in (0, 1) for challenge in (b"a" * 32, b"b" * 32)}
    assert len(made) == 4


def test_three_validators_place_a_node_and_the_liars_share_is_dropped() -> None:
    four = {validator(number) for number in range(4)}
    bounds = [(0, 1, 50), (1, 20_000, 50), (2, 30_000, 50), (3, 40_000, 50)]
    assert places.believed_us(record(*bounds), four, 50) == 20_000, "one of four may lie, and said 1"
    assert places.believed_us(record(*bounds[:3]), four, 50) == 20_000
    assert places.believed_us(record(*bounds[:2]), four, 50) is None
    seven = {validator(number) for number in range(7)}
    assert places.believed_us(record(*bounds), seven, 50) == 30_000, "two of seven may"
    ten = {validator(number) for number in range(10)}
    assert places.believed_us(record(*bounds[:3]), ten, 50) is None, "all three may lie"


def test_any_third_that_lies_can_not_bring_a_node_nearer() -> None:
    """Whoever lies, and however small: what is believed is never less than the nearest honest bound."""
    for size in (3, 4, 6, 7, 10):
        members = {validator(number) for number in range(size)}
        liars = (size - 1) // 3
        bounds = [(n, 1 if n < liars else 10_000 * (n + 1), 9) for n in range(size)]
        believed = places.believed_us(record(*bounds), members, 9)
        assert believed is not None
        assert believed >= 10_000 * (liars + 1)


def test_old_bounds_and_those_of_former_validators_do_not_count() -> None:
    four = {validator(number) for number in range(4)}
    held = record((0, 10, 50), (1, 20, 50), (2, 30, 50), (9, 1, 50))
    assert [each.microseconds for each in places.fresh(held, four, 50 + places.FRESH_EPOCHS)] == [10, 20, 30]
    assert places.fresh(held, four, 51 + places.FRESH_EPOCHS) == []


def test_kilometres_are_never_too_few() -> None:
    """Half the way of light in vacuum, 299,792.458 km/s."""
    for microseconds in (1, 7, 999, 1_000, 66_712, places.LONGEST_US):
        assert places.farthest_km(microseconds) >= microseconds * 299_792.458 / 2 / 1_000_000
    assert places.farthest_km(1_000) == 150
