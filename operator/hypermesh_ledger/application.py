"""The application process: ABCI on a unix socket for CometBFT, gRPC for everybody else, probes for Kubernetes.

Start order: probes (not ready, with the reason) -> federation -> peers, if any -> directory -> state -> ABCI -> first
heartbeat, which makes the supervisor start CometBFT -> gRPC. Started by the supervisor only, with the ledger's
directory as its current one and a pipe for heartbeats.
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
from hypermesh.v1 import ledger_pb2
from hypermesh_clients import serving
from hypermesh_ledger import federation, home, peering
from hypermesh_ledger.abci.server import AbciServer
from hypermesh_ledger.candidacy import Candidacy, falcon_key
from hypermesh_ledger.core import Core
from hypermesh_ledger.errors import Interrupted, Unrunnable
from hypermesh_ledger.genesis import make_genesis
from hypermesh_ledger.ingress import Peer, make_peer_server, make_server
from hypermesh_ledger.metrics import Metrics
from hypermesh_ledger.node_key import node_id
from hypermesh_ledger.options import add_application_options, proof_parameters
from hypermesh_ledger.peering import Peers
from hypermesh_ledger.pool import Pool
from hypermesh_ledger.retention import KeepAll
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
BEHIND_BLOCKS: Final = 50
"""Not ready, and no candidate, when a peer is further ahead than this."""
GENESIS: Final = Path("config/genesis.json")
VALIDATOR_KEY: Final = Path("config/priv_validator_key.json")
NODE_KEY: Final = Path("config/node_key.json")
FALCON_KEY: Final = Path("config/falcon_key")


class Progress:
    """Whether blocks come: the readiness check, and what the heartbeat says."""

    def __init__(self) -> None:
        self._core: Core | None = None
        self.height = 0
        self._moved: float | None = None
        self.peers: Peers | None = None

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
        if self.peers is not None and self.behind():
            return f"catching up: at height {self.height}, a peer is at {self.peers.best}"
        silent = time.monotonic() - self._moved
        return f"no block for {silent:.0f} s{self._company()}" if silent > SILENT_S else None

    def _company(self) -> str:
        return "" if self.peers is None else f"; {self.peers.answering} of {self.peers.count} peers answer"

    def behind(self) -> bool:
        """Whether a peer has many blocks that are not here yet."""
        return self.peers is not None and self.peers.best > self.height + BEHIND_BLOCKS

    def heartbeat(self) -> bytes:
        """The height; and with peers, the greatest of theirs, so that the supervisor knows whose fault a stop is."""
        self.look()
        return f"{self.height}\n".encode() if self.peers is None else f"{self.height} {self.peers.best}\n".encode()


async def run(options: argparse.Namespace) -> None:
    """Until cancelled. Raises Unrunnable, Interrupted, NativeLibraryMissing."""
    falcon.native()
    progress = Progress()
    probes = serving.Probes(options.metrics_port, {"chain": progress.check})
    await probes.start()
    plan = peering.plan(options.p2p_address, options.peers, options.name, options.peers_tls_name)
    joined = await _federation(options, FALCON_KEY if plan else None)
    network, answer = None, None
    if plan is not None:
        progress.peers = peering.Peers(plan, joined.ca_pem)
        answer = _peer_answer(plan, progress)
        network = await _introduced(options, joined, plan, progress.peers, answer)
    here, genesis = Path(), make_genesis(joined.root_public, proof_parameters(options.proof_parameters))
    chain_id = home.prepare(here, options.chain_id, genesis, network)
    store = Store(here / "state")
    verifier = Verifier()
    verdicts = Verdicts(verifier)
    snapshots = Snapshots(here / "snapshots", options.snapshot_interval)
    core = Core(store, verdicts, Pool(gossip=plan is not None), Metrics(), snapshots)
    if plan is not None:
        core.retention = KeepAll()
    core.failing = probes.failing
    core.metrics.watch(core.pool, lambda: len(core.watches))
    core.metrics.watch_process(verifier, core.consensus, snapshots, here)
    progress.begin(core)
    probes.add("certificate", joined.check)
    abci = AbciServer(core, home.ABCI_SOCKET)
    await abci.start()
    server, port = make_server(core, f"[{options.host}]:{options.port}", joined, answer)
    await server.start()
    candidacy = _candidacy(core, joined) if plan is not None else None
    _log.info("serving chain %s at height %d on port %d", chain_id, store.head.height, port)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(abci.run())
            tasks.create_task(_heartbeat(options.heartbeat_fd, progress))
            tasks.create_task(joined.renew())
            tasks.create_task(core.consensus.follow())
            if progress.peers is not None:
                tasks.create_task(progress.peers.follow())
            if candidacy is not None:
                tasks.create_task(candidacy.run(progress.behind))
    finally:
        await server.stop(GRACE_S)
        await verifier.close()
        verdicts.close()
        await probes.stop()


async def _introduced(
    options: argparse.Namespace,
    joined: federation.Federation,
    plan: peering.Plan,
    peers: peering.Peers,
    answer: Peer,
) -> home.Network:
    """What peers tell; they hear of us meanwhile. Raises HomeMismatch, IngressUnusable."""
    server, _ = make_peer_server(f"[{options.host}]:{options.port}", joined, answer)
    await server.start()
    try:
        document = await peers.introduce(joined.root_public, GENESIS.exists())
    finally:
        await server.stop(0)
    return home.Network(plan.listen, peering.persistent_peers(), document)


def _peer_answer(plan: peering.Plan, progress: Progress) -> Peer:
    own = node_id(NODE_KEY)

    def answer() -> ledger_pb2.PeerResponse:
        genesis = GENESIS.read_bytes() if GENESIS.exists() else b""
        return ledger_pb2.PeerResponse(genesis=genesis, node_id=own, p2p_port=plan.port, height=progress.height)

    return answer


def _candidacy(core: Core, joined: federation.Federation) -> Candidacy | None:
    first = joined.identity()
    if first is None:
        _log.warning("no --falcon-key: this ledger follows the chain, and will not ask to be a validator")
        return None
    return Candidacy(core, lambda: joined.identity() or first, VALIDATOR_KEY)


async def _federation(options: argparse.Namespace, key_file: Path | None) -> federation.Federation:
    if options.root_public_key is not None:
        identity = (options.falcon_key, options.falcon_certificate) if options.falcon_key else None
        files = options.root_public_key, options.tls_cert, options.tls_key, options.tls_ca
        return federation.FileFederation(*files, identity)
    from hypermesh_ledger import membership  # only here: the Kubernetes client costs memory and start-up time

    trustchain = membership.TrustChain(options.namespace, options.trustchain, options.token_file)
    return await membership.join(trustchain, falcon_key(key_file) if key_file else None)


async def _heartbeat(descriptor: int, progress: Progress) -> None:
    """Tell the supervisor the height; it reads, so this never blocks for long."""
    while True:
        os.write(descriptor, progress.heartbeat())
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
