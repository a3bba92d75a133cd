"""Round trips that validators measured, as the state keeps them: the newest of each validator by node.

    VoteExtension.round_trips -> enrolled node? epoch of now, or the one before? first of that epoch? -> PlaceRecord

A validator's word is about its own distance only; how a reader combines them is in hypermesh.places. Nothing that is
decided depends on them. Begins once a block shows the votes of the whole set and all say that their programs know these
rules: a set whose programs are replaced one after the other would else part. See docs/decisions/0062-network-place.md.
"""

from __future__ import annotations

from typing import Final

from hypermesh import falcon
from hypermesh.operations import canonical
from hypermesh.places import FRESH_EPOCHS, LONGEST_US
from hypermesh.v1 import votes_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.execution import extensions
from hypermesh_ledger.execution.context import read
from hypermesh_ledger.state import Fork

COUNTED: Final = 16
"""Round trips of one extension that are looked at; with all verdicts it may carry they fit into it."""

Record = votes_pb2.PlaceRecord


def take_in(state: Fork, commit: votes_pb2.ExtendedCommit, epoch: int) -> None:
    """What the votes that a block shows tell of nodes."""
    heard = extensions.heard(commit)
    told = [(address, trip) for address, said in heard for trip in said.round_trips[:COUNTED]]
    if not told:
        return
    signing = frozenset(extensions.signers(state, commit.height))  # asked for membership only, never iterated
    if state.get(keys.PLACES) is None:
        if len(heard) < len(signing) or any(said.rules < extensions.RULES for _, said in heard):
            return
        state.put(keys.PLACES, keys.PRESENT)
    for address, trip in told:
        if _plausible(state, trip, epoch):
            _record(state, address, trip, signing, epoch)


def _plausible(state: Fork, trip: votes_pb2.RoundTrip, epoch: int) -> bool:
    return (
        len(trip.node) == falcon.KEY_ID_BYTES
        and trip.epoch <= epoch <= trip.epoch + 1
        and 0 < trip.microseconds <= LONGEST_US
        and state.get(keys.node(trip.node)) is not None
    )


def _record(state: Fork, address: bytes, trip: votes_pb2.RoundTrip, signing: frozenset[bytes], epoch: int) -> None:
    """The newest of each validator; what is too old, or of who signs no more, goes on this occasion."""
    key = keys.place(trip.node)
    held = read(state, key, Record) or Record()
    if any(bound.validator == address and bound.epoch >= trip.epoch for bound in held.bounds):
        return
    kept = {
        bound.validator: bound
        for bound in held.bounds
        if bound.validator in signing and bound.epoch + FRESH_EPOCHS >= epoch
    }
    kept[address] = Record.Bound(validator=address, microseconds=trip.microseconds, epoch=trip.epoch)
    state.put(key, canonical(Record(node=trip.node, bounds=[kept[each] for each in sorted(kept)])))
