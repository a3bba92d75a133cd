"""When a block has something to do by itself: the only reason, beside health, to make one that carries nothing."""

from __future__ import annotations

from hypermesh.v1 import ledger_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.execution.context import read
from hypermesh_ledger.state import Reader


def next_due(state: Reader) -> int:
    """Unix milliseconds: from this block time on, a block begins an epoch or ends a lease without any operation.

    Forgetting what has ended has time until the next block. The state must hold a genesis.
    """
    genesis = read(state, keys.GENESIS, ledger_pb2.Genesis)
    if genesis is None:
        raise ValueError("the state holds no genesis: InitChain did not run")
    epoch = read(state, keys.EPOCH, ledger_pb2.Epoch) or ledger_pb2.Epoch()
    due = (epoch.number + 1) * genesis.proofs.epoch_ms
    first = next(iter(state.scan(keys.DUE)), None)
    return due if first is None else min(due, keys.index_time(first[0], keys.DUE))
