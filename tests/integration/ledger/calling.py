"""A node that calls validators, to be run in a network namespace of its own: the agent's side, and nothing else of it.

python calling.py KEY CA CHAIN TARGET...     (prints one JSON line for each target)
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from hypermesh import falcon
from hypermesh_clients.places import be_measured


async def call(pair: falcon.KeyPair, ca_pem: bytes, chain_id: str, *targets: str) -> None:
    """Raises NotMeasured."""
    for target in targets:
        measured = await be_measured(target, ca_pem, "localhost", pair, chain_id)
        print(json.dumps({"target": target, "microseconds": measured.microseconds}))


if __name__ == "__main__":
    key, ca, *rest = sys.argv[1:]
    asyncio.run(call(falcon.KeyPair.decode(Path(key).read_bytes()), Path(ca).read_bytes(), *rest))
