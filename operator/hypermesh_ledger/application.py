"""The application process: ABCI on a unix socket for CometBFT, gRPC for everybody else, probes for Kubernetes.

Start order: probes (not ready, with the reason) -> federation -> directory -> state -> ABCI -> first heartbeat, which
makes the supervisor start CometBFT -> gRPC. Started by the supervisor only, with the ledger's directory as its current
one and a pipe for heartbeats.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
from pathlib import Path
from typing import Final

import uvloop

from hypermesh import falcon
from hypermesh_clients import serving
from hypermesh_ledger import federation, home
from hypermesh_ledger.abci.server import AbciServer
from hypermesh_ledger.core import Core
from hypermesh_ledger.errors import Interrupted, Unrunnable
from hypermesh_ledger.genesis import make_genesis
from hypermesh_ledger.ingress import make_server
from hypermesh_ledger.metrics import Metrics
from hypermesh_ledger.options import add_application_options, proof_parameters
from hypermesh_ledger.pool import Pool
from hypermesh_ledger.snapshots import Snapshots
from hypermesh_ledger.store import Store
from hypermesh_ledger.supervisor import EX_CONFIG
from hypermesh_ledger.verdicts import Verdicts
from hypermesh_ledger.verifier import Verifier

_log = logging.getLogger("hypermesh_ledger")

HEARTBEAT_S: Final = 1.0
SILENT_S: Final = 10.0
"""Not ready when the newest commit is older than this."""
GRACE_S: Final = 2.0


class Progress:
    """Whether blocks come: the readiness check, and what the heartbeat says."""

    def __init__(self) -> None:
        self._core: Core | None = None
        self.height = 0
        self._moved: float | None = None

    def begin(self, core: Core) -> None:
        """The blocks that are there already say nothing about whether CometBFT makes more."""
        self._core, self.height = core, core.store.head.height

    def look(self) -> None:
        """Notice a new height."""
        height = self._core.store.head.height if self._core else 0
        if height != self.height:
            self.height, self._moved = height, time.monotonic()

    def check(self) -> str | None:
        """None when ready."""
        self.look()
        if self._core is None:
            return "waiting for TrustChain's root and certificate"
        if self._moved is None:
            return f"no block yet since the start at height {self.height}"
        silent = time.monotonic() - self._moved
        return f"no block for {silent:.0f} s" if silent > SILENT_S else None


async def run(options: argparse.Namespace) -> None:
    """Until cancelled. Raises Unrunnable, Interrupted, NativeLibraryMissing."""
    falcon.native()
    progress = Progress()
    probes = serving.Probes(options.metrics_port, {"chain": progress.check})
    await probes.start()
    joined = await _federation(options)
    here, genesis = Path(), make_genesis(joined.root_public, proof_parameters(options.proof_parameters))
    chain_id = home.prepare(here, options.chain_id, genesis)
    store = Store(here / "state")
    verifier = Verifier()
    verdicts = Verdicts(verifier)
    snapshots = Snapshots(here / "snapshots", options.snapshot_interval)
    core = Core(store, verdicts, Pool(), Metrics(), snapshots)
    core.metrics.watch(lambda: len(core.pool), lambda: len(core.watches))
    progress.begin(core)
    probes.add("certificate", joined.check)
    abci = AbciServer(core, home.ABCI_SOCKET)
    await abci.start()
    server, port = make_server(core, f"[{options.host}]:{options.port}", joined)
    await server.start()
    _log.info("serving chain %s at height %d on port %d", chain_id, store.head.height, port)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(abci.run())
            tasks.create_task(_heartbeat(options.heartbeat_fd, progress))
            tasks.create_task(joined.renew())
    finally:
        await server.stop(GRACE_S)
        await verifier.close()
        verdicts.close()
        await probes.stop()


async def _federation(options: argparse.Namespace) -> federation.Federation:
    if options.root_public_key is not None:
        return federation.FileFederation(options.root_public_key, options.tls_cert, options.tls_key)
    from hypermesh_ledger import membership  # only here: the Kubernetes client costs memory and start-up time

    trustchain = membership.TrustChain(options.namespace, options.trustchain, options.token_file)
    return await membership.join(trustchain)


async def _heartbeat(descriptor: int, progress: Progress) -> None:
    """Tell the supervisor the height; it reads, so this never blocks for long."""
    while True:
        progress.look()
        os.write(descriptor, f"{progress.height}\n".encode())
        await asyncio.sleep(HEARTBEAT_S)


def main(argv: list[str] | None = None) -> int:
    """Entry point of the child: 0 after a signal, 78 for what a person must mend, 1 for what a restart may."""
    parser = argparse.ArgumentParser(prog="hypermesh-ledger-application")
    add_application_options(parser)
    parser.add_argument("heartbeat_fd", type=int)
    options = parser.parse_args(argv)
    serving.setup_logging("ledger")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serving.run_until_signal(run(options)))
    except BaseExceptionGroup as group:
        return _explain(group.exceptions[0])
    except Exception as error:  # noqa: BLE001 - the last line before the end says why
        return _explain(error)
    return 0


def _explain(error: BaseException) -> int:
    if isinstance(error, Unrunnable | falcon.NativeLibraryMissing):
        _log.critical("%s", error)
        return EX_CONFIG
    if isinstance(error, Interrupted):
        _log.critical("%s", error)
        return 1
    _log.critical("the ledger's application failed: %r", error, exc_info=error)
    return 1


if __name__ == "__main__":
    sys.exit(main())
