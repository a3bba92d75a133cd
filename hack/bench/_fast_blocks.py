"""hypermesh-ledger, but until its height is BLOCKS an idle ledger makes blocks as fast as it can.

BLOCKS=10000 python hack/bench/_fast_blocks.py run --home ...       (the same arguments as hypermesh-ledger)
"""

from __future__ import annotations

import os
import sys

from hypermesh_ledger import application, main
from hypermesh_ledger.abci import prepare_proposal
from hypermesh_ledger.core import Core


def hurry(blocks: int) -> None:
    """No wait for operations before that height."""
    original = prepare_proposal._patience
    prepare_proposal._patience = lambda core, block_ms: _wait(core, blocks) and original(core, block_ms)


def _wait(core: Core, blocks: int) -> float:
    return 1.0 if core.store.head.height >= blocks else 0.0


def run() -> int:
    """The supervisor, or (named by it) the application."""
    if sys.argv[1] == "application":
        hurry(int(os.environ["BLOCKS"]))
        return application.main(sys.argv[2:])
    original = main.application_command
    main.application_command = lambda options: [sys.executable, "-P", __file__, "application", *original(options)[4:]]
    return main.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
