"""Executes recorded blocks again from the genesis, on an empty store: python replaying.py BLOCKS STORE

BLOCKS holds one file for each request, `<height>-<hash>`, InitChain's with height 0. Prints the app hash after each
height as JSON. A process of its own, so that PYTHONHASHSEED is what the caller sets.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from hypermesh_ledger.abci import server
from hypermesh_ledger.core import Core
from hypermesh_ledger.metrics import Metrics
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci
from hypermesh_ledger.pool import Pool
from hypermesh_ledger.store import Store
from hypermesh_ledger.verdicts import Verdicts
from hypermesh_ledger.verifier import Verifier


async def replay(blocks: list[Path], store: Path) -> list[str]:
    """App hashes after heights 1, 2, ...; the very methods that CometBFT calls."""
    verifier = Verifier()
    verdicts = Verdicts(verifier)
    core = Core(Store(store), verdicts, Pool(), Metrics(CollectorRegistry()))
    hashes = []
    try:
        for path in blocks:
            if path.name.startswith("00000000-"):
                await server.METHODS["init_chain"](core, abci.RequestInitChain.FromString(path.read_bytes()))
                continue
            request = abci.RequestFinalizeBlock.FromString(path.read_bytes())
            answer = await server.METHODS["finalize_block"](core, request)
            await core.commit()
            hashes.append(answer.app_hash.hex())
    finally:
        await verifier.close()
    return hashes


if __name__ == "__main__":
    print(json.dumps(asyncio.run(replay(sorted(Path(sys.argv[1]).iterdir()), Path(sys.argv[2])))))
