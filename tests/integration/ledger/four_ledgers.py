"""Four ledgers in four network namespaces on one bridge, IPv6 only. Only usable in a private namespace.

Each is the real program with its own home, key and certificate; they share the test's trust root and TLS certificate.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from hypermesh import operations
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_clients.ledger import Commit, LedgerClient, LedgerUnavailable
from hypermesh_ledger.home import RPC_SOCKET

from ...builders import Member, TrustRoot, member
from ..ledger_fixture import PROGRAM, patient, write_files

COUNT = 4
PORT, METRICS, P2P = 7450, 7470, 26656
LIMIT_S = 120.0


def run(*command: str) -> str:
    """To its end; an error carries what it said."""
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, f"{' '.join(command)}: {ran.stderr or ran.stdout}"
    return ran.stdout


@dataclass
class Place:
    """One ledger's namespace, files and, while it runs, its supervisor."""

    number: int
    directory: Path
    holder: subprocess.Popen[bytes]
    identity: Member
    client: LedgerClient
    process: asyncio.subprocess.Process | None = None
    paused: list[int] = field(default_factory=list)
    program: Sequence[str] = PROGRAM
    options: Sequence[str] = ()

    @property
    def address(self) -> str:
        return f"fd00:98::{self.number + 1}"

    @property
    def log(self) -> str:
        return (self.directory / "ledger.log").read_text(errors="replace")

    async def start(self, *, alone: bool = False, listed: int = COUNT, program: Sequence[str] | None = None) -> None:
        """Returns at once. alone: listens for nobody; listed: how many ledgers it is told of, with itself."""
        peers = ",".join(f"[fd00:98::{number + 1}]:{PORT}" for number in range(listed))
        more = () if alone else ("--p2p-address", f"[{self.address}]:{P2P}", "--peers", peers)
        named = () if alone else ("--name", f"[{self.address}]:{PORT}", "--peers-tls-name", "localhost")
        command = [
            *("nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "--", *(program or self.program), "run"),
            *("--home", str(self.directory / "home"), "--host", self.address, "--port", str(PORT)),
            *("--metrics-port", str(METRICS), "--proof-parameters", str(self.directory / "parameters.json")),
            *("--root-public-key", str(self.directory / "root.pub")),
            *("--tls-cert", str(self.directory / "tls.crt"), "--tls-key", str(self.directory / "tls.key")),
            *(
                "--falcon-key",
                str(self.directory / "falcon"),
                "--falcon-certificate",
                str(self.directory / "falcon.crt"),
            ),
            *(*more, *named, *self.options),
        ]
        with (self.directory / "ledger.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)

    async def kill(self) -> None:
        """kill -9 of the supervisor, which takes its two processes along."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """SIGTERM."""
        if self.process is None or self.process.returncode is not None:
            return
        self.resume()
        self.process.terminate()
        try:
            async with asyncio.timeout(20):
                await self.process.wait()
        except TimeoutError:
            await self.kill()

    def pause(self) -> None:
        """SIGSTOP of all three processes."""
        assert self.process is not None
        children = run("ps", "-o", "pid=", "--ppid", str(self.process.pid)).split()
        self.paused = [self.process.pid, *map(int, children)]
        for pid in self.paused:
            os.kill(pid, signal.SIGSTOP)

    def pause_application(self) -> None:
        """SIGSTOP of the application alone: CometBFT lives, and waits for its answers."""
        assert self.process is not None
        for pid in map(int, run("ps", "-o", "pid=", "--ppid", str(self.process.pid)).split()):
            if b"hypermesh_ledger.application" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                self.paused = [pid]
                os.kill(pid, signal.SIGSTOP)
        assert self.paused

    def resume(self) -> None:
        """SIGCONT of what `pause` stopped."""
        for pid in self.paused:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.paused = []

    async def status(self) -> ledger_pb2.StatusResponse | None:
        """None when it does not answer."""
        with contextlib.suppress(LedgerUnavailable):
            return await self.client.status(timeout=2)
        return None

    async def until(self, true: Callable[[ledger_pb2.StatusResponse], bool], what: str) -> ledger_pb2.StatusResponse:
        """The first status of which it is true."""
        end = time.monotonic() + LIMIT_S
        last = None
        while time.monotonic() < end:
            assert self.process is not None
            assert self.process.returncode is None, self.log[-4000:]
            last = await self.status()
            if last is not None and true(last):
                return last
            await asyncio.sleep(0.1)
        raise AssertionError(f"ledger {self.number}: no {what} in {LIMIT_S:.0f} s; last {last}\n{self.log[-3000:]}")

    async def seats(self) -> dict[str, ledger_pb2.ValidatorRecord]:
        """By subject."""
        with contextlib.suppress(LedgerUnavailable):
            return {each.subject: each for each in (await self.client.validators(timeout=2)).validators}
        return {}

    async def proven(self, key: bytes) -> bytes:
        """What the state holds under a key; empty for nothing."""
        return (await self.client.get_proof(key)).value

    async def block(self, height: int) -> dict[str, Any]:
        """CometBFT's own JSON of one block."""
        connector = aiohttp.UnixConnector(str(self.directory / "home" / RPC_SOCKET))
        timeout = aiohttp.ClientTimeout(total=10)
        session = aiohttp.ClientSession("http://cometbft", connector=connector, timeout=timeout)
        async with session, session.get("/block", params={"height": height}) as answer:
            found: dict[str, Any] = (await answer.json())["result"]["block"]
        return found

    async def enrolment(self, root: TrustRoot, subject: str) -> tuple[bytes, bytes]:
        """A new node's key id and signed EnrolNode."""
        new = member(root, trust_pb2.ROLE_OPERATOR, subject)
        status = await self.until(lambda _: True, "answer")
        operation = ledger_pb2.Operation(
            chain_id=status.chain_id,
            valid_until_ms=time.time_ns() // 1_000_000 + 300_000,
            enrol_node=ledger_pb2.EnrolNode(certificate=new.certificate),
        )
        return new.key_id, operations.build(operation, new.keypair.public, new.keypair.secret)

    async def insist(self, tx: bytes) -> Commit:
        """Submit the same bytes until they are committed, as every client should. Bounded."""
        end = time.monotonic() + LIMIT_S
        while True:
            try:
                return await self.client.submit(tx, timeout=20)
            except LedgerUnavailable as error:
                if time.monotonic() > end:
                    raise AssertionError(f"ledger {self.number}: {error}\n{self.log[-3000:]}") from error
                await asyncio.sleep(0.2)

    async def commit(self, root: TrustRoot, subject: str) -> bytes:
        """Enrol a new node through this ledger; its key id once committed."""
        key_id, tx = await self.enrolment(root, subject)
        await self.insist(tx)
        return key_id

    async def readiness(self) -> str:
        """What /readyz says."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session,
            session.get(f"http://[{self.address}]:{METRICS}/readyz") as reply,
        ):
            return await reply.text()

    async def enrolled(self) -> set[bytes]:
        """Key ids of all enrolled members in its newest state."""
        found = set()
        async for changes in self.client.watch():
            found |= {change.node.key_id for change in changes.changes if change.HasField("node")}
            if any(change.synced for change in changes.changes):
                break
        return found


async def agree(places: list[Place]) -> int:
    """All are at one height with one app hash; that height. Bounded."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        statuses = await asyncio.gather(*(place.status() for place in places))
        if all(statuses) and len({each.height for each in statuses if each}) == 1:
            hashes = {each.app_hash for each in statuses if each}
            assert len(hashes) == 1, f"a fork at height {statuses[0].height if statuses[0] else 0}: {hashes}"
            return statuses[0].height if statuses[0] else 0
        await asyncio.sleep(0.05)
    raise AssertionError(f"never at one height: {[each.height if each else None for each in statuses]}")


def _namespace() -> subprocess.Popen[bytes]:
    """A process in a network namespace of its own."""
    holder, own = subprocess.Popen(["unshare", "--net", "sleep", "infinity"]), run("readlink", "/proc/self/ns/net")
    while run("readlink", f"/proc/{holder.pid}/ns/net") == own:
        assert holder.poll() is None
    return holder


def _place(directory: Path, number: int, root: TrustRoot) -> Place:
    """Files, namespace and wire of one more ledger; number 0 first, whose files the others share."""
    first, here = directory / "ledger-0", directory / f"ledger-{number}"
    if number == 0:
        write_files(here, root, patient())
    else:
        here.mkdir()
        for name in ("root.pub", "parameters.json", "tls.crt", "tls.key"):
            (here / name).write_bytes((first / name).read_bytes())
    identity = member(root, trust_pb2.ROLE_VALIDATOR, f"hypermesh-ledger-{number}")
    (here / "falcon").write_bytes(identity.keypair.encode())
    (here / "falcon.crt").write_bytes(identity.certificate.SerializeToString(deterministic=True))
    client = LedgerClient(f"[fd00:98::{number + 1}]:{PORT}", (first / "tls.crt").read_bytes(), "localhost")
    place = Place(number, here, _namespace(), identity, client)
    inside = ("nsenter", f"--net=/proc/{place.holder.pid}/ns/net", "--", "ip")
    run("ip", "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", str(place.holder.pid))
    run("ip", "link", "set", f"v{number}", "master", "br0", "up")
    run(*inside, "link", "set", "lo", "up")
    run(*inside, "-6", "address", "add", f"{place.address}/64", "dev", "eth0", "nodad")
    run(*inside, "link", "set", "eth0", "up")
    return place


@contextlib.asynccontextmanager
async def places_for(directory: Path, numbers: Sequence[int], root: TrustRoot) -> AsyncIterator[list[Place]]:
    """Nothing started; all stopped at the end."""
    places: list[Place] = []
    try:
        for number in numbers:
            places.append(_place(directory, number, root))
        yield places
    finally:
        await asyncio.gather(*(place.stop() for place in places))
        for place in places:
            await place.client.close()
            place.holder.terminate()
            place.holder.wait(10)


@contextlib.asynccontextmanager
async def four(directory: Path, root: TrustRoot) -> AsyncIterator[list[Place]]:
    """Four places on one bridge, nothing started; all stopped at the end."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "br0", "type", "bridge", "stp_state", "0", "forward_delay", "0")
    run("ip", "-6", "address", "add", "fd00:98::ffff/64", "dev", "br0", "nodad")
    run("ip", "link", "set", "br0", "up")
    async with places_for(directory, range(COUNT), root) as places:
        yield places
