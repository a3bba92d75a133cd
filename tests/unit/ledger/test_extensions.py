"""Vote extensions: when they begin, who must be shown, and that nothing else passes for the votes of a block."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypermesh import operations
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import votes_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.checks import verify_now
from hypermesh_ledger.execution import Block, Vote, execute, extensions
from hypermesh_ledger.execution.context import read
from hypermesh_ledger.execution.validators import SEEN_BLOCKS

from ...builders import TrustRoot
from .extended import Extended
from .test_validators import CHAIN, Chain, address, consensus, public

Commit = votes_pb2.ExtendedCommit


@pytest.fixture(scope="module")
def grown(root: TrustRoot) -> Extended:
    return Extended(root)


@pytest.fixture
def chain(grown: Extended) -> Extended:
    return copy.deepcopy(grown)


def clock(chain: Extended) -> votes_pb2.VoteClock:
    found = read(chain.state, keys.CLOCK, votes_pb2.VoteClock)
    assert found is not None
    return found


def shows(chain: Extended, tx: bytes, round_: int = 0) -> Commit:
    block = chain.block_of(tx, round_=round_)
    return extensions.verified(chain.state, CHAIN, block.height, block.round, block.votes, tx)


# -- begin -------------------------------------------------------------------------------------------------------


def test_they_begin_in_the_block_that_makes_the_set_of_four(root: TrustRoot) -> None:
    chain = Extended(root, joined=False)
    heights = [chain.go(chain.joining(number, extends_votes=True)).enable_height for number in range(4)]
    assert heights == [0, 0, 0, chain.height + 2]
    assert [extensions.required(chain.state, chain.height + ahead) for ahead in (1, 2, 3)] == [False, False, True]
    assert extensions.signers(chain.state, chain.height + 1) == {}
    expected = {address(number): public(number) for number in range(4)}
    assert extensions.signers(chain.state, chain.height + 2) == expected


def test_not_with_older_programs_and_chains_that_exist_stay_as_they_are(root: TrustRoot) -> None:
    """JoinValidator without the mark writes what it wrote before; the last one that is asked again begins it."""
    chain = Extended(root, joined=False)
    for number in range(4):
        assert chain.go(chain.joining(number)).enable_height == 0
    assert len(chain.powers) == 4
    assert not [key for key in chain.state.entries if key.startswith((keys.EXTENSIONS, keys.SIGNERS, keys.CLOCK))]
    assert b"extends_votes" not in repr(chain.record(0)).encode()
    before = chain.record(2).joined_height
    heights = [chain.go(chain.joining(number, extends_votes=True)).enable_height for number in range(4)]
    assert heights == [0, 0, 0, chain.height + 2]
    assert chain.record(2).joined_height == before
    assert chain.record(2).extends_votes


def test_once_begun_nobody_joins_without(chain: Extended) -> None:
    (refused,) = chain.go(chain.joining(4)).operations
    assert refused.reason is Reason.ExtensionsNeeded
    (joined,) = chain.go(chain.joining(4, extends_votes=True)).operations
    assert joined.reason is None


def test_a_lone_validator_stays_without(root: TrustRoot) -> None:
    chain = Extended(root, joined=False)
    for number in range(3):
        chain.go(chain.joining(number, extends_votes=True))
    assert not chain.state.get(keys.EXTENSIONS)
    assert chain.go().enable_height == 0


# -- who signs which height --------------------------------------------------------------------------------------


def test_votes_are_of_the_set_of_their_height(chain: Extended) -> None:
    """Join, then leave: every block on the way shows the votes of those who signed the one before, no more, no less."""
    chain.go(chain.joining(4, extends_votes=True))
    sizes = [len(chain.signing(chain.height + ahead)) for ahead in (0, 1, 2)]
    assert sizes == [4, 4, 5]
    for _ in range(4):
        assert chain.go().extended is not None
    assert len(shows(chain, chain.first()[0]).votes) == 5
    chain.go(chain.leaving(0))
    assert chain.powers.keys() == {public(number) for number in range(1, 5)}
    for expected in (5, 5, 4, 4):
        outcome = chain.go()
        assert outcome.extended is not None
        assert len(outcome.extended.votes) == expected
    assert len(list(chain.state.scan(keys.SIGNERS))) <= 3


def test_a_seat_with_a_new_key_is_counted_by_the_old_one_for_two_blocks(chain: Extended) -> None:
    chain.go(chain.joining(1, key=9, extends_votes=True))
    for _ in range(4):
        outcome = chain.go()
        assert outcome.extended is not None
    assert address(9) in [each.address for each in outcome.extended.votes]
    assert address(1) not in [each.address for each in outcome.extended.votes]


# -- what a block may begin with ---------------------------------------------------------------------------------


def test_votes_that_are_absent_are_not_shown(chain: Extended) -> None:
    chain.away = {2}
    outcome = chain.go()
    assert outcome.extended is not None
    assert len(outcome.extended.votes) == 3
    chain.away = {1, 2}
    with pytest.raises(Refused, match="2 votes of a set of 4"):
        shows(chain, chain.first()[0])


def _swap(commit: Commit) -> None:
    commit.votes[0].extension, commit.votes[1].extension = commit.votes[1].extension + b"", b""


FORGED: dict[str, Callable[[Commit], object]] = {
    "two left out": lambda c: [c.votes.pop(), c.votes.pop()],
    "one twice": lambda c: c.votes.append(c.votes[0]),
    "one twice, for another": lambda c: [c.votes.pop(), c.votes.append(c.votes[0])],
    "another order": lambda c: c.votes.reverse(),
    "another height": lambda c: setattr(c, "height", c.height - 1),
    "another round": lambda c: setattr(c, "round", 1),
    "an extension changed": lambda c: setattr(c.votes[0], "extension", c.votes[0].extension + b"\x12\x00"),
    "an extension emptied": _swap,
    "a signature of another": lambda c: setattr(c.votes[0], "signature", c.votes[1].signature),
    "a long signature": lambda c: setattr(c.votes[0], "signature", c.votes[0].signature + b"x"),
    "no signature": lambda c: setattr(c.votes[0], "signature", b""),
    "a stranger": lambda c: setattr(c.votes[0], "address", address(7)),
    "none": lambda c: c.ClearField("votes"),
}


@pytest.mark.parametrize("how", FORGED)
def test_forged_votes_are_refused(chain: Extended, how: str) -> None:
    commit = chain.commit(chain.height)
    FORGED[how](commit)
    tx = extensions.encode(commit)
    with pytest.raises(Refused):
        shows(chain, tx)
    outcome = execute(chain.state, chain.block_of(tx), verify_now)
    assert outcome.extended is None
    assert [result.reason for result in outcome.results] == [Reason.Malformed]
    assert outcome.writes == execute(chain.state, chain.block_of(), verify_now).writes


def test_a_signature_for_another_chain_height_or_round_is_none(chain: Extended) -> None:
    for chain_id, height, round_ in (
        ("other", chain.height, 0),
        (CHAIN, chain.height - 1, 0),
        (CHAIN, chain.height, 1),
    ):
        commit = chain.commit(chain.height)
        signed = extensions.sign_bytes(chain_id, height, round_, commit.votes[2].extension)
        number = chain.signing(chain.height)[2]
        commit.votes[2].signature = consensus(number).sign(signed)
        with pytest.raises(Refused) as caught:
            shows(chain, extensions.encode(commit))
        assert caught.value.reason is Reason.BadSignature


def test_other_encodings_are_refused(chain: Extended) -> None:
    good = chain.first()[0]
    shows(chain, good)
    for tx in (good[1:], good + b"\x08\x01", good[:-1], extensions.PREFIX + good, b"", extensions.PREFIX):
        with pytest.raises(Refused):
            shows(chain, tx)


def test_an_extension_that_is_too_large_or_none_is_no_vote(chain: Extended) -> None:
    for said in (b"\x12" + b"x" * extensions.MAX_EXTENSION_BYTES, b"\xff", b"\x08" + b"\xff" * 9 + b"\x01"):
        assert extensions.parse(said) is None
        chain.say[0] = said
        with pytest.raises(Refused, match="none that can be counted"):
            shows(chain, chain.first()[0])
    chain.say[0] = b""
    assert len(shows(chain, chain.first()[0]).votes) == 4
    newer = b"\xba\x3e\x03abc"  # a field that this program does not know
    assert extensions.parse(newer) is not None


def test_a_vote_that_came_late_may_be_left_out(chain: Extended) -> None:
    """CometBFT counts it in the last commit without VerifyVoteExtension, so it may say what no block may show."""
    for number in range(4):
        commit = chain.commit(chain.height)
        del commit.votes[number]
        assert shows(chain, extensions.encode(commit)) == commit
        outcome = execute(chain.state, chain.block_of(extensions.encode(commit)), verify_now)
        assert outcome.extended == commit


def test_votes_elsewhere_than_first_or_twice_do_nothing(chain: Extended) -> None:
    (good,) = chain.first()
    outcome = execute(chain.state, chain.block_of(good, good), verify_now)
    assert [result.reason for result in outcome.results] == [None, Reason.Malformed]
    assert outcome.operations == outcome.results[1:]
    outcome = execute(chain.state, chain.block_of(b"noise", good), verify_now)
    assert [result.reason for result in outcome.results] == [Reason.Malformed] * 2


def test_votes_before_they_begin_do_nothing(root: TrustRoot) -> None:
    chain = Chain(root)
    tx = extensions.encode(Commit(height=chain.height))
    assert chain.next(tx)[0].reason is Reason.Malformed


def test_no_decoder_of_operations_takes_them(chain: Extended) -> None:
    with pytest.raises(Refused) as caught:
        operations.decode(chain.first()[0])
    assert caught.value.reason is Reason.Malformed


# -- clock and beacon --------------------------------------------------------------------------------------------


def test_the_middle_clock_of_two_thirds_is_kept_when_an_epoch_begins(chain: Extended) -> None:
    held = clock(chain)
    assert (held.clocks, held.apart) == (4, False)
    for _ in range(SEEN_BLOCKS):
        chain.go()
    before = dict(chain.state.entries)
    chain.go()
    assert chain.state.entries == before, "idle blocks leave the app hash alone"
    for number, ahead in enumerate((-50_000, 20, 30, 900_000)):
        chain.say[number] = operations.canonical(votes_pb2.VoteExtension(clock_ms=chain.now_ms + ahead))
    voted = chain.now_ms
    chain.go(after_ms=chain.genesis.proofs.epoch_ms)
    assert clock(chain).median_ms == voted + 20
    assert (clock(chain).height, clock(chain).block_ms) == (chain.height - 1, chain.now_ms)


def test_clocks_that_part_from_block_time_are_noted_at_once(chain: Extended) -> None:
    far = operations.canonical(votes_pb2.VoteExtension(clock_ms=chain.now_ms - extensions.APART_MS - 5_000))
    chain.say = {0: far}
    chain.go()
    assert not clock(chain).apart, "one liar is not the middle"
    chain.say = dict.fromkeys(range(4), far)
    chain.go()
    assert clock(chain).apart
    chain.say = {}
    chain.go()
    assert not clock(chain).apart


def test_too_few_clocks_say_nothing(chain: Extended) -> None:
    far = operations.canonical(votes_pb2.VoteExtension(clock_ms=1))
    chain.say = {0: b"", 1: b"", 2: far, 3: far}
    chain.go()
    assert not clock(chain).apart


@given(st.lists(st.integers(-(10**9), 10**9), min_size=3, max_size=40), st.data())
def test_a_third_of_liars_can_not_move_the_middle_beyond_the_honest(honest: list[int], data: st.DataObject) -> None:
    liars = data.draw(st.lists(st.integers(-(10**10), 10**10), max_size=(len(honest) - 1) // 2))
    now = 10**12
    commit = Commit(height=1)
    for offset in honest + liars:
        commit.votes.add(extension=operations.canonical(votes_pb2.VoteExtension(clock_ms=now + offset)))
    found = extensions.clock_of(commit, len(honest) + len(liars), now)
    assert found is not None
    assert min(honest) <= found.median_ms - now <= max(honest)


def test_the_next_epochs_beacon_depends_on_the_votes_that_began_this_one(grown: Extended) -> None:
    """Not on what is said in between, which would be a write at every block."""
    beacons = []
    for begin, between in ((1, 5), (1, 6), (2, 5)):
        chain = copy.deepcopy(grown)
        for clock_ms, after_ms in ((begin, chain.genesis.proofs.epoch_ms), (between, 10)):
            said = operations.canonical(votes_pb2.VoteExtension(clock_ms=clock_ms))
            chain.say = dict.fromkeys(range(4), said)
            chain.go(after_ms=after_ms)
        chain.go(after_ms=chain.genesis.proofs.epoch_ms)
        beacons.append(chain.epoch.beacon)
    assert beacons[0] == beacons[1] != beacons[2]


def test_replay_under_another_cache_gives_the_same(chain: Extended) -> None:
    """Signatures remembered or not, the outcome is the same."""
    block = chain.block_of(*chain.first())
    warm = execute(chain.state, block, verify_now)
    extensions._signed.cache_clear()
    assert execute(chain.state, block, verify_now).writes == warm.writes


def test_sign_bytes_are_cometbfts() -> None:
    """As `VoteExtensionSignBytes` of v0.40.0 gives them for this vote (protoio: length first, sfixed64)."""
    found = extensions.sign_bytes("test_chain_id", 1, 2, b"ext")
    body = b"\x0a\x03ext" + b"\x11" + (1).to_bytes(8, "little") + b"\x19" + (2).to_bytes(8, "little")
    body += b"\x22\x0dtest_chain_id"
    assert found == bytes([len(body)]) + body
    assert extensions.sign_bytes("c", 5, 0, b"") == b"\x0c\x11" + (5).to_bytes(8, "little") + b"\x22\x01c"


def test_votes_against_any_block_have_no_extension(chain: Extended) -> None:
    block = chain.block_of(*chain.first())
    against = [*block.votes[:3], Vote(block.votes[3].address, True, committed=False)]
    wrong: Block = replace(block, votes=against)
    assert execute(chain.state, wrong, verify_now).extended is None
