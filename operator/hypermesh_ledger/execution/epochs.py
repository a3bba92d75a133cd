"""Epochs and their beacons: what nobody could foresee when the epoch before it ended.

    beacon(e) = H(beacon(e'), hash of the first block of e, outputs of all VDFs proven since e')

With the latter go, where votes are extended, the signatures that the first block of e' shows (see extensions).

Epochs are numbered by block time (unix milliseconds / epoch length), so an outage skips numbers and nothing else.
"""

from __future__ import annotations

from functools import lru_cache

from hypermesh.digests import digest, u64
from hypermesh.v1 import ledger_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.state import Fork, Reader

KEPT_BEACONS = 2
"""The current epoch's beacon and the one before: a proof begun late in an epoch may end in the next."""


def current(state: Reader) -> ledger_pb2.Epoch:
    """The epoch under way; number 0 before the first block."""
    return _epoch(state.get(keys.EPOCH) or b"")


@lru_cache(16)
def _epoch(value: bytes) -> ledger_pb2.Epoch:
    """Shared: never changed."""
    return ledger_pb2.Epoch.FromString(value)


def advance(state: Fork, genesis: ledger_pb2.Genesis, time_ms: int, block_hash: bytes) -> ledger_pb2.Epoch:
    """The epoch of a block at time_ms; begins a new one when it is time. block_hash: 32 bytes."""
    held = current(state)
    number = max(1, time_ms // genesis.proofs.epoch_ms)
    if number <= held.number:
        return held
    mix = state.get(keys.VDF_MIX) or b""
    beacon = digest("beacon", held.beacon, block_hash, mix, u64(number))
    epoch = ledger_pb2.Epoch(number=number, beacon=beacon, started_ms=time_ms)
    state.put(keys.EPOCH, epoch.SerializeToString(deterministic=True))
    for key, _ in list(state.scan(keys.BEACON))[: -(KEPT_BEACONS - 1)]:
        state.delete(key)
    state.put(keys.beacon(number), beacon)
    return epoch


def mix_in(state: Fork, output: bytes) -> None:
    """Stir a proven VDF output into the next epoch's beacon."""
    state.put(keys.VDF_MIX, digest("beacon/mix", state.get(keys.VDF_MIX) or b"", output))
