"""What the size of the state costs: memory of a process that holds it, and processor time of an operation.

    PYTHONSAFEPATH=1 python hack/bench/state.py [--assets 1000,10000,100000,1000000] [--operations 400]

In one process, without consensus and network, which would take hours to make a million assets: real signed
RegisterAsset operations (1,000 under one signature), each block executed and committed to LMDB as the application
does it. Nodes' tickets are put into the state by the ledger's own `win`, as if proven. At each size Allocates, each
with a signature of its own and of assets drawn from all, are judged, executed and committed in blocks of 100:
processor time an operation without the signature's verification, which no state makes slower, the least of three
rounds.

Memory is what the process has for itself (RssAnon) and, apart, pages of files (RssFile): those of the database that it
has touched among them, which the kernel takes back when it needs them.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT), str(ROOT / "hack" / "bench")]  # last: they must shadow nothing

from _rows import Row, compared, publish, resident, single  # noqa: E402
from tests.builders import Member, TrustRoot, allocation, member, registration  # noqa: E402

from hypermesh import operations  # noqa: E402
from hypermesh.proofs.parameters import DEMO  # noqa: E402
from hypermesh.proofs.tickets import stake_ticket_hash  # noqa: E402
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2  # noqa: E402
from hypermesh_ledger import keys  # noqa: E402
from hypermesh_ledger.checks import Check, verify_now  # noqa: E402
from hypermesh_ledger.execution import Block, execute, judge  # noqa: E402
from hypermesh_ledger.execution import tickets as ticket_rules  # noqa: E402
from hypermesh_ledger.execution.context import Context, read  # noqa: E402
from hypermesh_ledger.genesis import app_state, initial_state, make_genesis  # noqa: E402
from hypermesh_ledger.state import Fork  # noqa: E402
from hypermesh_ledger.store import Store  # noqa: E402

CHAIN: Final = "hypermesh-state-bench"
TOGETHER: Final = 1_000
"""Operations under one signature; one node has as many assets."""
BLOCK: Final = 100
ROUNDS: Final = 3
CPU, MEMORY = ledger_pb2.ASSET_TYPE_CPU, ledger_pb2.ASSET_TYPE_MEMORY
SPACE, WORK, TIME = proofs_pb2.PROOF_KIND_SPACE, proofs_pb2.PROOF_KIND_WORK, proofs_pb2.PROOF_KIND_TIME

Asset = tuple[int, int]
"""Number of its node, and its own there."""


class Chain:
    """A store, and blocks for it. Time stands still, so that no ticket gets old."""

    def __init__(self, directory: Path) -> None:
        self.root = TrustRoot()
        self.genesis = make_genesis(self.root.keypair.public, DEMO)
        self.store = Store(directory)
        self.now_ms = time.time_ns() // 1_000_000
        self._verified: set[bytes] = set()
        self._write(initial_state(CHAIN, json.dumps(app_state(self.genesis)).encode()))
        self.operator = self.enrol(trust_pb2.ROLE_OPERATOR, "operator")
        self.nodes: list[Member] = []

    def _write(self, writes: dict[bytes, bytes] | dict[bytes, bytes | None]) -> None:
        prepared = self.store.prepare(self.store.head.height + 1, self.now_ms, dict(writes))
        self.store.commit(prepared)
        self.store.advance(prepared)

    def verify(self, check: Check) -> None:
        """As the application's verdicts: each signature once."""
        if check.key not in self._verified:
            verify_now(check)
            self._verified.add(check.key)

    def block(self, txs: Sequence[bytes]) -> None:
        """Execute and commit; none may be refused."""
        block = Block(self.store.head.height + 1, self.now_ms, bytes(32), txs)
        outcome = execute(self.store.snapshot, block, self.verify)
        refused = next((result for result in outcome.results if result.reason), None)
        if refused:
            raise SystemExit(f"refused: {refused.reason}: {refused.message}")
        self._write(outcome.writes)

    def judge(self, txs: Sequence[bytes]) -> None:
        """As admission does."""
        block = Block(self.store.head.height + 1, self.now_ms, bytes(32), ())
        for tx in txs:
            judge(self.store.snapshot, block, operations.decode(tx), self.verify)

    def operation(self, **kind: object) -> ledger_pb2.Operation:
        return ledger_pb2.Operation(chain_id=CHAIN, valid_until_ms=self.now_ms + 300_000, **kind)  # type: ignore[arg-type]

    def enrol(self, role: trust_pb2.Role, subject: str) -> Member:
        new = member(self.root, role, subject, not_before=self.now_ms // 1000 - 600)
        operation = self.operation(enrol_node=ledger_pb2.EnrolNode(certificate=new.certificate))
        self.block([operations.build(operation, new.keypair.public, new.keypair.secret)])
        return new

    def add_node(self) -> None:
        """Enrolled, tickets won, one block of assets registered."""
        number = len(self.nodes)
        node = self.enrol(trust_pb2.ROLE_NODE, f"node-{number}")
        self.nodes.append(node)
        self._win(node, node.asset_id(CPU, "cpu"))
        refs = self._refs(node, node)
        asked = [(self.operation(register_asset=self.asset((number, each))), refs) for each in range(TOGETHER)]
        txs = operations.build_batch(asked, node.keypair.public, node.keypair.secret)
        self.block(txs)
        self._verified.clear()

    def _win(self, node: Member, device: bytes) -> None:
        fork = Fork(self.store.snapshot)
        epoch = read(fork, keys.EPOCH, ledger_pb2.Epoch) or ledger_pb2.Epoch()
        tx = operations.build(
            self.operation(prove=ledger_pb2.Prove(epoch=epoch.number)), node.keypair.public, node.keypair.secret
        )
        context = Context(
            fork,
            self.store.head.height,
            self.now_ms,
            bytes(32),
            CHAIN,
            self.genesis,
            epoch,
            self.verify,
            operations.decode(tx),
        )
        for kind, subject in ((SPACE, node.key_id), (TIME, node.key_id), (WORK, device)):
            ticket_rules.win(context, kind, node.key_id, subject, epoch.number, _ticket(kind, node.key_id))
        self._write(fork.writes)

    def _refs(self, signer: Member, node: Member) -> proofs_pb2.TicketRefs:
        epoch = read(self.store.snapshot, keys.EPOCH, ledger_pb2.Epoch) or ledger_pb2.Epoch()
        return proofs_pb2.TicketRefs(
            space=_ticket(SPACE, node.key_id),
            work=_ticket(WORK, node.key_id),
            time=_ticket(TIME, node.key_id),
            stake=stake_ticket_hash(signer.key_id, signer.body.role, signer.certificate, epoch.number),
        )

    def asset(self, asset: Asset) -> ledger_pb2.RegisterAsset:
        """Address collisions of 36 bits are left to chance: none among a node's few thousand."""
        node = self.nodes[asset[0]]
        device = node.asset_id(CPU, "cpu")
        return registration(node, MEMORY, f"memory-{asset[1]}", 1 << 40, work_device=device)

    def allocates(self, count: int, name: str, chance: random.Random) -> list[bytes]:
        """Each signed by itself, of assets anywhere."""
        signed = []
        for each in range(count):
            number = chance.randrange(len(self.nodes))
            node = self.nodes[number]
            asked = allocation(node, self.asset((number, chance.randrange(TOGETHER))), f"{name}-{each}", 1)
            keys_ = self.operator.keypair
            operation = self.operation(allocate=asked)
            signed.append(operations.build(operation, keys_.public, keys_.secret, self._refs(self.operator, node)))
        return signed


@functools.cache
def _ticket(kind: int, node: bytes) -> bytes:
    return operations.tx_hash(bytes([kind]) + node)


def _cost_us(chain: Chain, txs: Sequence[bytes]) -> float:
    """Processor time an operation: judged, executed, committed; signatures verified before the clock starts."""
    chain.judge(txs)
    began = time.process_time()
    for first in range(0, len(txs), BLOCK):
        chain.judge(txs[first : first + BLOCK])
        chain.block(txs[first : first + BLOCK])
    return (time.process_time() - began) / len(txs) * 1e6


def measure(options: argparse.Namespace, directory: Path) -> Iterator[Row]:
    """Each size on the state of the one before."""
    chain, chance, first = Chain(directory), random.Random(1), 0.0
    for size in options.assets:
        while len(chain.nodes) * TOGETHER < size:
            chain.add_node()
        held = len(chain.nodes) * TOGETHER
        costs = [
            _cost_us(chain, chain.allocates(options.operations, f"{size}-{round_}", chance)) for round_ in range(ROUNDS)
        ]
        cost = min(costs)
        name = f"an operation with {held:,} assets"
        if first:
            yield compared(name, "µs", [cost], "with the fewest", [first])
        else:
            first = cost
            yield single(name, "µs", cost)
        for field, what in (("RssAnon", "own"), ("RssFile", "of files, the database's pages among them")):
            yield single(f"memory with {held:,} assets, {what}", "MiB", resident_of(field))
    chain.store.close()


def resident_of(field: str) -> float:
    """MiB of this process."""
    import os

    return resident(os.getpid(), field) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--assets", type=lambda text: [int(each) for each in text.split(",")], default="1000,10000,100000,1000000"
    )
    parser.add_argument("--operations", type=int, default=400, help="Allocates measured at each size, a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="state-bench-") as directory:
        publish("state", measure(options, Path(directory)))


if __name__ == "__main__":
    main()
