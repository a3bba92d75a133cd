"""The ledger as it is, with one difference: its blocks hold a dozen Allocates, so that a pool fills on a fast machine.

    python small_blocks.py run --home ...       (the same arguments as hypermesh-ledger)

The size of blocks is a parameter of the chain, fixed in its genesis.
"""

from __future__ import annotations

import sys
from typing import Any

from hypermesh_ledger import application, home, main

BLOCK_BYTES = 24 << 10


def shrink() -> None:
    """Of the chains that begin from here on."""
    original = home._document

    def document(*args: Any) -> dict[str, Any]:
        made = original(*args)
        made["consensus_params"]["block"]["max_bytes"] = str(BLOCK_BYTES)
        made["consensus_params"]["evidence"]["max_bytes"] = str(BLOCK_BYTES // 8)
        return made

    home._document = document


def run() -> int:
    """The supervisor, or (named by it) the application."""
    shrink()
    if sys.argv[1] == "application":
        return application.main(sys.argv[2:])
    original = main.application_command
    main.application_command = lambda options: [sys.executable, "-P", __file__, "application", *original(options)[4:]]
    return main.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
