"""The state machine: execute(state, block, verify) -> writes and results. No input or output, no clock, no randomness.

One file a concern. Everything is integers, bytes and ordered scans; time is the block's; refusals are values.
"""

from hypermesh_ledger.execution.block import Block, Outcome, Result, execute, judge, new_lease, signature
from hypermesh_ledger.execution.context import Lie, Vote

__all__ = ["Block", "Lie", "Outcome", "Result", "Vote", "execute", "judge", "new_lease", "signature"]
