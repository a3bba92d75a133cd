"""A real one-validator ledger on ::1, with a fresh trust root, for integration tests and benchmarks.

    async with running_ledger(directory) as ledger:
        operator = await ledger.enrol(ROLE_OPERATOR, "hypermesh-operator")
        node = await ledger.enrol(ROLE_NODE, "node-1")
        await ledger.win_tickets(node, [node.asset_id(ASSET_TYPE_CPU, "cpu-0")])
        asset = await ledger.register(node, ASSET_TYPE_MEMORY, "mem-0", 64 << 30, work_device=...)

Nothing is stubbed: CometBFT, the supervisor, the application, Falcon signatures and won tickets are the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import json_format

from hypermesh import operations
from hypermesh.proofs import challenge, parameters
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2
from hypermesh_agent.proofs.prover import Prover, WorkDevice
from hypermesh_clients.ledger import Commit, LedgerClient, LedgerUnavailable
from hypermesh_clients.mirror import Mirror

from ..builders import Member, TrustRoot, allocation, member, registration
from ..processes import free_port

START_S = 120.0


def patient() -> proofs_pb2.ProofParameters:
    """The demo's proofs with epochs that last as long as a test module on a busy machine."""
    params = proofs_pb2.ProofParameters()
    params.CopyFrom(parameters.DEMO)
    params.epoch_ms = 3_600_000
    return params


@dataclass
class Ledger:
    """A running ledger, its root, and one client and mirror of it."""

    directory: Path
    root: TrustRoot
    port: int
    metrics_port: int
    ca_pem: bytes
    command: Sequence[str]
    client: LedgerClient
    mirror: Mirror
    process: asyncio.subprocess.Process | None = None

    @property
    def home(self) -> Path:
        return self.directory / "home"

    @property
    def chain_id(self) -> str:
        """Of the chain that the mirror follows."""
        return self.mirror.chain_id

    @property
    def target(self) -> str:
        return f"[::1]:{self.port}"

    # -- processes -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the supervisor (again) and wait for a block."""
        log = (self.directory / "ledger.log").open("ab")
        with log:
            self.process = await asyncio.create_subprocess_exec(*self.command, stdout=log, stderr=log)
        await self.until_up()

    async def stop(self) -> int:
        """Ask the supervisor to end; its exit status."""
        if self.process is None:
            return 0
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(20):
                return await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise AssertionError("the supervisor did not end within 20 s of SIGTERM") from None

    async def until_up(self, after: int = 0, limit_s: float = START_S) -> ledger_pb2.StatusResponse:
        """Returns the status as soon as a block above `after` is committed."""
        async with asyncio.timeout(limit_s):
            while True:
                with contextlib.suppress(LedgerUnavailable):
                    status = await self.client.status(timeout=1)
                    if status.height > after:
                        return status
                if self.process is not None and self.process.returncode is not None:
                    raise AssertionError(f"ledger ended ({self.process.returncode}):\n{self.log()[-4000:]}")
                await asyncio.sleep(0.05)

    def log(self) -> str:
        """Everything the three processes wrote."""
        return (self.directory / "ledger.log").read_text(errors="replace")

    def pids(self) -> dict[str, int]:
        """Process ids of "application" and "cometbft", as far as they run."""
        found: dict[str, int] = {}
        if self.process is None:
            return found
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                command = (entry / "cmdline").read_bytes().split(b"\0")
                if parent == self.process.pid:
                    found["cometbft" if b"start" in command else "application"] = int(entry.name)
        return found

    # -- operations ------------------------------------------------------------------------------------------

    def operation(
        self, *, valid_for_ms: int = 300_000, chain_id: str | None = None, **kind: object
    ) -> ledger_pb2.Operation:
        """An Operation of the given kind (allocate=..., release=...)."""
        valid_until = time.time_ns() // 1_000_000 + valid_for_ms
        return ledger_pb2.Operation(chain_id=chain_id or self.chain_id, valid_until_ms=valid_until, **kind)  # type: ignore[arg-type]

    def envelope(self, signer: Member, tickets: proofs_pb2.TicketRefs | None = None, **kind: object) -> bytes:
        """A signed transaction."""
        return operations.build(self.operation(**kind), signer.keypair.public, signer.keypair.secret, tickets)

    async def submit(self, signer: Member, tickets: proofs_pb2.TicketRefs | None = None, **kind: object) -> Commit:
        """Sign and submit."""
        return await self.client.submit(self.envelope(signer, tickets, **kind), timeout=30)

    async def enrol(self, role: trust_pb2.Role, subject: str, **terms: object) -> Member:
        """A new enrolled key."""
        new = member(self.root, role, subject, **terms)
        await self.submit(new, enrol_node=ledger_pb2.EnrolNode(certificate=new.certificate))
        await self.mirror.wait_until(lambda: new.key_id in self.mirror.nodes, START_S)
        return new

    async def win_tickets(self, node: Member, devices: Sequence[bytes], prover: Prover | None = None) -> None:
        """Really prove space, work and time for the current epoch; a new epoch in between means again."""
        prover = prover or Prover(self.directory / "plots" / node.key_id.hex(), node.key_id)
        await prover.ensure_plot(self.mirror.parameters.space_min_k)
        for _ in range(3):
            try:
                height = await self._win(prover, node, devices, self.mirror.epoch)
            except Refused as refusal:
                if refusal.reason is not Reason.EpochWrong:
                    raise
            else:
                await self.mirror.wait_until(lambda height=height: self.mirror.height >= height, START_S)  # type: ignore[misc]
                return
        raise AssertionError("three epochs passed before the tickets were won")

    async def _win(self, prover: Prover, node: Member, devices: Sequence[bytes], epoch: ledger_pb2.Epoch) -> int:
        asked = challenge(self.chain_id, epoch.beacon, node.key_id, epoch.number)
        params = self.mirror.parameters
        work = await prover.commit_work(asked, [WorkDevice(device) for device in devices], params)
        await self.submit(node, commit_work=ledger_pb2.CommitWork(epoch=epoch.number, commitments=work))
        await self.mirror.wait_until(lambda: self._seeded(node, epoch.number), START_S)
        proof = await prover.prove(asked, epoch.number, self.mirror.work_seeds[node.key_id], params)
        return (await self.submit(node, prove=proof)).height

    def _seeded(self, node: Member, epoch: int) -> bool:
        seed = self.mirror.work_seeds.get(node.key_id)
        return seed is not None and seed.epoch == epoch

    async def register(self, node: Member, asset: ledger_pb2.RegisterAsset) -> ledger_pb2.RegisterAsset:
        """Register an asset with the node's tickets and see it in the mirror."""
        tickets = self.mirror.ticket_refs(node.key_id, asset.work_device, node.key_id)
        await self.submit(node, tickets, register_asset=asset)
        await self.mirror.wait_until(lambda: asset.asset_id in self.mirror.assets, START_S)
        return asset


def write_tls(directory: Path) -> bytes:
    """A self-signed certificate for ::1 as tls.crt and tls.key; returns its PEM, which clients trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ledger test")])
    now = datetime.now(UTC)
    names = [x509.IPAddress(ipaddress.ip_address("::1")), x509.DNSName("localhost")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (directory / "tls.crt").write_bytes(pem)
    (directory / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem


def write_files(directory: Path, root: TrustRoot, proofs: proofs_pb2.ProofParameters) -> bytes:
    """All files that the command line names; returns the PEM that clients trust."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "root.pub").write_bytes(root.keypair.public)
    (directory / "parameters.json").write_text(json_format.MessageToJson(proofs))
    return write_tls(directory)


PROGRAM = (sys.executable, "-P", "-m", "hypermesh_ledger.main")


def command_for(program: Sequence[str], directory: Path, port: int, metrics_port: int) -> list[str]:
    """How the supervisor is started on the files of `directory`."""
    return [
        *(*program, "run"),
        *("--home", str(directory / "home"), "--host", "::1", "--port", str(port)),
        *("--metrics-port", str(metrics_port), "--proof-parameters", str(directory / "parameters.json")),
        *("--root-public-key", str(directory / "root.pub")),
        *("--tls-cert", str(directory / "tls.crt"), "--tls-key", str(directory / "tls.key")),
    ]


@contextlib.asynccontextmanager
async def running_ledger(
    directory: Path,
    proofs: proofs_pb2.ProofParameters | None = None,
    root: TrustRoot | None = None,
    program: Sequence[str] = PROGRAM,
    options: Sequence[str] = (),
) -> AsyncIterator[Ledger]:
    """A ledger with its files below `directory`, up and mirrored; stopped and checked at the end."""
    root = root or TrustRoot()
    ca_pem = write_files(directory, root, proofs or parameters.DEMO)
    port, metrics_port = free_port(), free_port()
    client = LedgerClient(f"[::1]:{port}", ca_pem)
    ledger = Ledger(
        directory=directory,
        root=root,
        port=port,
        metrics_port=metrics_port,
        ca_pem=ca_pem,
        command=[*command_for(program, directory, port, metrics_port), *options],
        client=client,
        mirror=Mirror(client),
    )
    following = asyncio.create_task(ledger.mirror.run())
    try:
        await ledger.start()
        async with asyncio.timeout(START_S):
            await ledger.mirror.synced.wait()
        yield ledger
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await client.close()
        await ledger.stop()


@dataclass(frozen=True)
class Settled:
    """A ledger with one operator, one node and its CPU asset, tickets really won."""

    ledger: Ledger
    operator: Member
    node: Member
    cpu: ledger_pb2.RegisterAsset

    def refs(self, signer: Member | None = None) -> proofs_pb2.TicketRefs:
        """The four tickets for an operation on the CPU asset."""
        who = signer or self.operator
        return self.ledger.mirror.ticket_refs(self.node.key_id, self.cpu.work_device, who.key_id)

    def allocate(self, uid: str, amount: int = 1, **terms: object) -> bytes:
        """A signed Allocate of the CPU asset."""
        asked = allocation(self.node, self.cpu, uid, amount, **terms)  # type: ignore[arg-type]
        return self.ledger.envelope(self.operator, self.refs(), allocate=asked)

    @property
    def reserved(self) -> int:
        """What the mirror shows as reserved."""
        return self.ledger.mirror.assets[self.cpu.asset_id].reserved


async def settle(ledger: Ledger, capacity: int) -> Settled:
    """Enrol, prove and register for real (a few seconds: a plot is made)."""
    operator = await ledger.enrol(trust_pb2.ROLE_OPERATOR, "hypermesh-operator")
    node = await ledger.enrol(trust_pb2.ROLE_NODE, "node-1")
    await ledger.win_tickets(node, [node.asset_id(ledger_pb2.ASSET_TYPE_CPU, "cpu-0")])
    asset = registration(node, ledger_pb2.ASSET_TYPE_CPU, "cpu-0", capacity)
    return Settled(ledger, operator, node, await ledger.register(node, asset))


@contextlib.asynccontextmanager
async def resumed(
    before: Settled, directory: Path, proofs: proofs_pb2.ProofParameters, program: Sequence[str] = PROGRAM
) -> AsyncIterator[Settled]:
    """A ledger in `directory` that goes on from a copy of what `before`, which is stopped, had committed."""
    shutil.copytree(before.ledger.home, directory / "home", ignore=shutil.ignore_patterns("run"))  # sockets
    async with running_ledger(directory, proofs, before.ledger.root, program) as ledger:
        yield replace(before, ledger=ledger)
