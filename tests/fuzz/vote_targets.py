"""What validators and proposers send each other: extensions, and the first transaction of a block."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from hypermesh.operations import canonical
from hypermesh.refusals import Refused
from hypermesh.v1 import ledger_pb2, votes_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.execution import Vote, extensions, places, rechecks
from hypermesh_ledger.execution.validators import address_of
from hypermesh_ledger.state import Fork, Memory

CHAIN, HEIGHT, EPOCH = "hypermesh-fuzz", 9, 7
RESULT = b"r" * 32
NODE = b"n" * 32


@cache
def privates() -> dict[bytes, MLDSA65PrivateKey]:
    """By their address."""
    made = [MLDSA65PrivateKey.from_seed_bytes(bytes([number]) * 32) for number in range(4)]
    return {address_of(each.public_key().public_bytes_raw()): each for each in made}


@cache
def state() -> Memory:
    """In which the block of HEIGHT must show votes, and all four are drawn for one result."""
    publics = [each.public_key().public_bytes_raw() for each in privates().values()]
    drawn = [votes_pb2.RecheckRecord.Drawn(address=each) for each in privates()]
    record = votes_pb2.RecheckRecord(result=RESULT, epoch=EPOCH, drawn=drawn)
    return Memory(
        {
            keys.EXTENSIONS: canonical(votes_pb2.Extensions(enable_height=1)),
            keys.signers(1): canonical(votes_pb2.SigningSet(consensus_keys=publics)),
            keys.recheck(EPOCH, RESULT): canonical(record),
            keys.node(NODE): b"enrolled",
            keys.EPOCH: canonical(ledger_pb2.Epoch(number=EPOCH, started_ms=1)),
        }
    )


@cache
def shown() -> bytes:
    """The one transaction that is right, since signatures are not for whoever has no key."""
    commit = votes_pb2.ExtendedCommit(height=HEIGHT - 1)
    for address, private in privates().items():
        signature = private.sign(extensions.sign_bytes(CHAIN, HEIGHT - 1, 0, said()))
        commit.votes.add(address=address, extension=said(), signature=signature)
    return extensions.encode(commit)


def said() -> bytes:
    verdict = votes_pb2.Verdict(epoch=EPOCH, result=RESULT, outcome=votes_pb2.RECHECK_OUTCOME_AGREE)
    trip = votes_pb2.RoundTrip(node=NODE, epoch=EPOCH, microseconds=700)
    return canonical(
        votes_pb2.VoteExtension(clock_ms=1 << 40, verdicts=[verdict], round_trips=[trip], rules=extensions.RULES)
    )


def vote_extension(data: bytes) -> None:
    """Whatever passes for an extension can be taken in, from every validator."""
    found = extensions.parse(data)
    if found is None:
        return
    assert len(data) <= extensions.MAX_EXTENSION_BYTES
    commit = votes_pb2.ExtendedCommit(height=HEIGHT - 1)
    for address in privates():
        commit.votes.add(address=address, extension=data)
    fork = Fork(state())
    extensions.take_in(fork, commit, 2)
    rechecks.take_in(fork, extensions.heard(commit), EPOCH)
    assert len(fork.writes) <= 4
    places.take_in(fork, commit, EPOCH)
    for key in fork.writes:
        assert not key.startswith(keys.PLACE) or key == keys.place(NODE)


def shown_votes(data: bytes) -> None:
    """Only what the validators signed passes, in one encoding."""
    votes = [Vote(address, True, committed=True) for address in privates()]
    for tx in (data, extensions.PREFIX + data):
        try:
            extensions.verified(state(), CHAIN, HEIGHT, 0, votes, tx)
        except Refused:
            continue
        assert tx == shown()


VOTE_TARGETS = {target.__name__: target for target in (vote_extension, shown_votes)}


def vote_seeds() -> dict[str, list[bytes]]:
    """One good input of each."""
    return {"vote_extension": [said(), b""], "shown_votes": [shown()]}
