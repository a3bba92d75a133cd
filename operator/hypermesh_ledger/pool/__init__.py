"""The application's mempool: admitted transactions, in the order in which blocks take them.

    priority  which class a kind of operation is in
    lanes     one class: a lane a sender, served fairly
    limits    who gives way when there is no room
    waiting   Pool: all of it, and who waits for what

Why it is so: docs/decisions/0010-mempool.md.
"""

from hypermesh_ledger.pool.limits import EVERYBODYS_SHARE, OPERATORS_SHARE, Share
from hypermesh_ledger.pool.priority import Class
from hypermesh_ledger.pool.waiting import Pool, Waiter

__all__ = ["EVERYBODYS_SHARE", "OPERATORS_SHARE", "Class", "Pool", "Share", "Waiter"]
