"""The application process: ABCI on a unix socket for CometBFT, gRPC for everybody else, probes for Kubernetes.

Start order: probes (not ready, with the reason) -> federation -> peers, if any -> directory
(or what is to be fetched for it) -> state -> ABCI -> first
heartbeat, which makes the supervisor start CometBFT -> gRPC. Started by the supervisor only, with the ledger's
directory as its current one and a pipe for heartbeats.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
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
from hypermesh_ledger import federation, fetching, home, light_proxy, peering, rpc
from hypermesh_ledger.abci.server import AbciServer
from hypermesh_ledger.candidacy import Candidacy, falcon_key
from hypermesh_ledger.core import Core
from hypermesh_ledger.errors import CometbftSilent, HomeUnusable, Interrupted, Restored, Unrunnable
from hypermesh_ledger.execution.validators import address_of
from hypermesh_ledger.genesis import make_genesis
from hypermesh_ledger.hearing import Hearing
from hypermesh_ledger.ingress import Peer, make_peer_server, make_server
from hypermesh_ledger.joining import Own
from hypermesh_ledger.laggards import Laggards
from hypermesh_ledger.measuring import Places
from hypermesh_ledger.metrics import Metrics
from hypermesh_ledger.node_key import node_id
from hypermesh_ledger.options import SNAPSHOT_INTERVAL, add_application_options, proof_parameters
from hypermesh_ledger.peering import Peers
from hypermesh_ledger.pool import Pool
from hypermesh_ledger.rechecking import Rechecks
from hypermesh_ledger.retention import WithPeers
from hypermesh_ledger.snapshots import Snapshots
from hypermesh_ledger.store import Store, committed_height
from hypermesh_ledger.supervisor import EX_CONFIG
from hypermesh_ledger.telling import Telling
from hypermesh_ledger.validator_key import public_key
from hypermesh_ledger.verdicts import Verdicts
from hypermesh_ledger.verifier import Verifier

_log = logging.getLogger("hypermesh_ledger")

HEARTBEAT_S: Final = 1.0
SILENT_S: Final = 10.0
"""Not ready when the newest commit is older than this."""
GRACE_S: Final = 2.0
RESTORED_LOOK_S: Final = 0.2
BEHIND_BLOCKS: Final = 50
"""Not ready, and no candidate, when peers are further ahead than this."""
COLLECT: Final = (10_000, 20, 20)
"""Thresholds of the garbage collector. Next to nothing here is in cycles, and its looks hold up blocks."""
GENESIS: Final = peering.GENESIS
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
        self.restore: fetching.Steps | None = None
        self._goal = 0
        self._level = False

    def begin(self, core: Core, *, restores: bool = False) -> None:
        """The blocks that are there already say nothing about whether CometBFT makes more."""
        self._core, self.height = core, core.store.head.height
        if restores:
            self.restore = fetching.Steps(lambda: (core.restored, core.applied), time.monotonic)

    def snapshots(self) -> list[int]:
        """Heights of those that peers can have."""
        return self._core.snapshots.settled(self.height) if self._core else []

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
        if self.restore is not None:
            return f"fetching a snapshot of the state from a peer: {self._core.applied} parts so far"
        if self._moved is None:
            return f"no block yet since the start at height {self.height}"
        there = self._there()
        if self.height < (there - BEHIND_BLOCKS if self._level else there):
            return f"catching up: at height {self.height}, a peer is at {there}"
        silent = time.monotonic() - self._moved
        return f"no block for {silent:.0f} s{self._company()}" if silent > SILENT_S else None

    def _there(self) -> int:
        """Where peers are, 0 when none has told.

        Of a ledger that was never level with them the best of them, also while that one does not answer: its
        clients would see what was long ago. Afterwards more than half, so that one that lies makes nobody unready.
        """
        if self.peers is None:
            return 0
        self._goal = max(self._goal, self.peers.best)
        self._level = self._level or 0 < self._goal <= self.height
        return self.peers.common if self._level else self._goal

    def _company(self) -> str:
        return "" if self.peers is None else f"; {self.peers.answering} of {self.peers.count} peers answer"

    def behind(self) -> bool:
        """Whether most peers have many blocks that are not here yet: no time to be a candidate. One that lies keeps
        nobody from it."""
        return self.peers is not None and self.peers.common > self.height + BEHIND_BLOCKS

    def lagging(self) -> int:
        """The height that peers are told: until this ledger was level with them, and while most are ahead of it."""
        self.look()
        self._there()
        if self.peers is None or self.restore is not None or (self._level and self.peers.common <= self.height):
            return 0
        return self.height

    def told(self, height: int) -> None:
        """By another ledger, see `lagging`."""
        if self._core is not None and self._core.laggards is not None:
            self._core.laggards.told(height, self._core.store.head.height, time.monotonic())

    def judges(self) -> bool:
        """Whether the state is new enough to judge operations by."""
        return (
            self.restore is None and self._core is not None and self._core.store.head.height > 0 and not self.behind()
        )

    def heartbeat(self) -> bytes:
        """The height; and with peers, the greatest of theirs, so that the supervisor knows whose fault a stop is."""
        self.look()
        if self.restore is not None and not self.restore.silent():
            return b"0 0\n"
        return f"{self.height}\n".encode() if self.peers is None else f"{self.height} {self.peers.best}\n".encode()


async def run(options: argparse.Namespace) -> None:
    """Until cancelled. Raises Unrunnable, Interrupted, NativeLibraryMissing."""
    falcon.native()
    progress = Progress()
    probes = serving.Probes(options.metrics_port, {"chain": progress.check})
    await probes.start()
    plan = peering.plan(options.p2p_address, options.peers, options.name, options.peers_tls_name)
    several = plan is not None and bool(plan.targets)
    joined = await _federation(options, FALCON_KEY if several else None)
    network, answer = None, None
    if plan is not None:
        network, answer = home.Network(plan.listen, "", None, several=False), _peer_answer(plan, progress)
        if several:
            progress.peers = peering.Peers(plan, joined.ca_pem)
            network = await _introduced(options, joined, plan, progress.peers, answer)
            _clear(network)
    restores = network is not None and network.trust is not None
    here, genesis = Path(), make_genesis(joined.root_public, proof_parameters(options.proof_parameters))
    chain_id = home.prepare(here, options.chain_id, genesis, network)
    store = Store(here / "state")
    verifier = Verifier()
    verdicts = Verdicts(verifier)
    snapshots = Snapshots(here / "snapshots", _interval(options))
    core = Core(store, verdicts, Pool(gossip=several), Metrics(), snapshots)
    if plan is not None:
        core.retention = WithPeers(snapshots)
        address = address_of(public_key(VALIDATOR_KEY))
        core.rechecks = Rechecks(address, core.metrics)
        core.places = Places(address, core.metrics, lambda: store.snapshot)
    core.telling = Telling(core.pool) if several else None
    core.laggards = Laggards() if plan is not None and not several else None
    core.failing = probes.failing
    core.metrics.watch(core.pool, lambda: len(core.watches))
    core.metrics.watch_process(verifier, core.consensus, snapshots, here)
    progress.begin(core, restores=restores)
    probes.add("certificate", joined.check)
    abci = AbciServer(core, home.ABCI_SOCKET)
    await abci.start()
    server, port = make_server(core, f"[{options.host}]:{options.port}", joined, answer)
    await server.start()
    candidacy = _candidacy(core, joined) if several and not restores else None
    proxies = (
        await light_proxy.serve(progress.peers.clients(), fetching.LIGHT_SOCKETS) if progress.peers and restores else []
    )
    _log.info("serving chain %s at height %d on port %d", chain_id, store.head.height, port)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(abci.run())
            tasks.create_task(_heartbeat(options.heartbeat_fd, progress))
            tasks.create_task(joined.renew())
            tasks.create_task(core.consensus.follow())
            if progress.peers is not None:
                tasks.create_task(progress.peers.follow(progress.lagging))
                tasks.create_task(Hearing(core.admission, core.pool, progress.peers.clients(), progress.judges).run())
            if core.telling is not None:
                tasks.create_task(core.telling.run())
            if core.rechecks is not None:
                tasks.create_task(core.rechecks.run())
            if candidacy is not None:
                tasks.create_task(candidacy.run(progress.behind))
            if restores:
                tasks.create_task(_until_restored(core))
    finally:
        for proxy in proxies:
            await proxy.stop()
        await server.stop(GRACE_S)
        core.ahead.drop()  # its proofs would be waited for
        await verifier.close()
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
        height = committed_height(Path("state"))
        alone = height > 0 and home.alone(Path())
        own = Own(height, GENESIS.exists(), fetching.interrupted(Path()), alone)
        beginning = await peers.introduce(joined.root_public, own)
    finally:
        await server.stop(0)
    return home.Network(plan.listen, peering.persistent_peers(), beginning.document, beginning.trust)


def _clear(network: home.Network) -> None:
    """Make room for a snapshot, or for all blocks after a restore that did not end. Raises HomeUnusable."""
    if Path(home.RESTORING).exists():
        return  # of a backup; `prepare` says so
    try:
        if network.trust is not None or fetching.interrupted(Path()):
            fetching.begin(Path())
        if network.trust is None:
            fetching.end(Path())
    except OSError as error:
        raise HomeUnusable(f"Can't make room for a snapshot: {error}. Free space, and see who owns --home.") from error


async def _until_restored(core: Core) -> None:
    """Raises Restored when CometBFT has made a block on top of the snapshot: then it has all it needs."""
    while not core.restored or core.store.head.height <= core.restored:  # noqa: ASYNC110 - CometBFT's doing
        await asyncio.sleep(RESTORED_LOOK_S)
    fetching.end(Path())
    raise Restored(f"the state of height {core.restored} has come from peers; starting again with this validator's key")


def _interval(options: argparse.Namespace) -> int:
    """Blocks between snapshots; 0 for none."""
    if options.snapshot_interval is not None:
        return int(options.snapshot_interval)
    return SNAPSHOT_INTERVAL if options.p2p_address else 0


def _peer_answer(plan: peering.Plan, progress: Progress) -> Peer:
    own = node_id(NODE_KEY)

    async def answer(behind: int) -> ledger_pb2.PeerResponse:
        progress.told(behind)
        genesis = GENESIS.read_bytes() if GENESIS.exists() else b""
        told = ledger_pb2.PeerResponse(genesis=genesis, node_id=own, p2p_port=plan.port)
        if progress.restore is None and progress.height:
            told.height = progress.height
            told.snapshot_heights.extend(progress.snapshots())
            with contextlib.suppress(CometbftSilent):
                told.earliest_height = await rpc.earliest_height(home.RPC_SOCKET)
        return told

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
    gc.freeze()  # what the modules made stays: no need to look at it again
    gc.set_threshold(*COLLECT)
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
    if isinstance(error, Restored):
        _log.info("%s", error)
        return 1
    if isinstance(error, Interrupted):
        _log.critical("%s", error)
        return 1
    _log.critical("the ledger's application failed: %r", error, exc_info=error)
    return 1


if __name__ == "__main__":
    sys.exit(main())
