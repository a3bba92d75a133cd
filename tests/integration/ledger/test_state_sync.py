"""A full node without a past joins a running chain by CometBFT's state sync, from the ledger's snapshots.

The joining node is a stock CometBFT and the real application core; it is no validator.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from hypermesh.v1 import trust_pb2
from hypermesh_ledger import home, keys
from hypermesh_ledger.abci.server import AbciServer
from hypermesh_ledger.core import Core
from hypermesh_ledger.errors import HeightNotKept
from hypermesh_ledger.metrics import Metrics
from hypermesh_ledger.options import find_cometbft
from hypermesh_ledger.pool import Pool
from hypermesh_ledger.store import Store
from hypermesh_ledger.validator_key import write_validator_key
from hypermesh_ledger.verdicts import Verdicts
from hypermesh_ledger.verifier import Verifier

from ...processes import free_port
from ..ledger_fixture import Ledger, patient, running_ledger
from .light_client import rpc

INTERVAL = 5
JOIN_S = 60.0


def listening_cometbft(directory: Path, port: int) -> Path:
    """The program, with peers let in at this port."""
    path = directory / "cometbft"
    path.write_text(f'#!/bin/sh\nexec {find_cometbft(None)} "$@" --p2p.laddr "tcp://[::1]:{port}"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def prepare(directory: Path, ledger: Ledger, config: str) -> None:
    """A directory of a node that knows the chain by its genesis alone."""
    for name in ("config", "data", "run"):
        (directory / name).mkdir(parents=True)
    shutil.copy(ledger.home / "config" / "genesis.json", directory / "config")
    write_validator_key(directory / "config" / "priv_validator_key.json")
    (directory / "data" / "priv_validator_state.json").write_text('{"height": "0", "round": 0, "step": 0}')
    (directory / "config" / "config.toml").write_text(config)


@contextlib.asynccontextmanager
async def joining(directory: Path) -> AsyncIterator[Core]:
    """Application and CometBFT of the new node, in this process and beside it."""
    verifier = Verifier()
    core = Core(Store(directory / "state"), Verdicts(verifier), Pool(), Metrics(CollectorRegistry()))
    server = AbciServer(core, directory / "run" / "abci.sock")
    await server.start()
    serving = asyncio.create_task(server.run())
    program = find_cometbft(None)
    assert program
    with (directory / "log").open("wb") as log:
        node = await asyncio.create_subprocess_exec(
            program, "start", "--home", str(directory), cwd=directory, stdout=log, stderr=log
        )
    try:
        yield core
    finally:
        if node.returncode is None:
            node.terminate()
        await asyncio.wait_for(node.wait(), 20)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await verifier.close()
        core.store.close()


async def test_a_full_node_joins_by_state_sync(tmp_path: Path) -> None:
    rpc_port, p2p_port = free_port(), free_port()
    url = f"http://[::1]:{rpc_port}"
    options = ("--rpc", f"[::1]:{rpc_port}", "--snapshot-interval", str(INTERVAL))
    program = ("--cometbft", str(listening_cometbft(tmp_path, p2p_port)))
    async with running_ledger(tmp_path / "first", patient(), options=(*options, *program)) as ledger:
        node = await ledger.enrol(trust_pb2.ROLE_NODE, "node-1")
        await ledger.until_up(after=2 * INTERVAL + 3, limit_s=JOIN_S)  # idle: a block every three seconds
        trusted = (await rpc(url, "commit", height="2"))["signed_header"]["commit"]["block_id"]["hash"]
        peer = (await rpc(url, "status"))["node_info"]["id"]
        config = re.sub(r"\[p2p\]\n", f'[p2p]\npersistent_peers = "{peer}@[::1]:{p2p_port}"\n', home.CONFIG)
        config += (
            f'\n[statesync]\nenable = true\nrpc_servers = "{url},{url}"\ntrust_height = 2\ntrust_hash = "{trusted}"\n'
        )
        config += 'trust_period = "24h0m0s"\ndiscovery_time = "5s"\n'
        second = tmp_path / "second"
        prepare(second, ledger, config)
        began = time.monotonic()
        async with joining(second) as core:
            async with asyncio.timeout(JOIN_S):
                while core.store.head.height < 2 * INTERVAL + 3:  # noqa: ASYNC110 - CometBFT's doing
                    await asyncio.sleep(0.1)
            seconds = time.monotonic() - began
            assert core.store.snapshot.get(keys.node(node.key_id)) is not None
            head = core.store.head
            await ledger.until_up(after=head.height + 1)
            header = (await rpc(url, "commit", height=str(head.height + 1)))["signed_header"]["header"]
            assert header["app_hash"].lower() == head.app_hash.hex()
            with core.store.past(head.height) as past:
                assert past.prove(keys.node(node.key_id)).value
            with pytest.raises(HeightNotKept), core.store.past(INTERVAL - 1):
                pass  # it has not executed the blocks before the snapshot
        print(f"joined at height {head.height} after {seconds:.1f} s")
