"""What became of each transaction, so that people can ask: one row a block that had any, beside the state, not in it.

    results of a block -> row, in the transaction that commits the block -> kept as long as the block's undo row
    hash -> rows from the newest back, until one holds it (a search in memory; there is no index by hash to keep)

CometBFT keeps no index and no results here (see home), so nothing is stored twice. The bytes of a transaction are in
CometBFT's block store. Rows begin with the first block that this version of the program commits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from hypermesh.digests import u64
from hypermesh.v1 import ledger_pb2
from hypermesh_ledger.execution import Result

WORK_S: Final = 0.001
"""How long a search works before it rests: it holds the interpreter's lock, and blocks wait for that."""


def row_of(time_ms: int, results: Sequence[Result]) -> bytes:
    """Empty when the block had no transaction."""
    if not results:
        return b""
    row = ledger_pb2.Outcomes(time_ms=time_ms)
    for result in results:
        reason = "" if result.reason is None else result.reason.value
        row.outcomes.add(tx_hash=result.tx_hash, reason=reason, message=result.message)
    return row.SerializeToString()


def at(environment: Any, rows: Any, height: int) -> ledger_pb2.Outcomes | None:
    """The row of a block."""
    with environment.begin() as transaction:
        found = transaction.get(u64(height), db=rows)
    return None if found is None else ledger_pb2.Outcomes.FromString(found)


def find(environment: Any, rows: Any, tx_hash: bytes) -> tuple[int, ledger_pb2.Outcomes] | None:
    """Height and row of the newest block that decided a transaction. Rests as long as it works: in a thread."""
    with environment.begin() as transaction, transaction.cursor(rows) as cursor:
        began = time.perf_counter()
        for key, value in cursor.iterprev():
            if tx_hash in value:
                row = ledger_pb2.Outcomes.FromString(value)
                if any(each.tx_hash == tx_hash for each in row.outcomes):
                    return int.from_bytes(key, "big"), row
            worked = time.perf_counter() - began
            if worked > WORK_S:
                time.sleep(worked)
                began = time.perf_counter()
    return None
