"""The node's whole proxy part: from a committed record to bytes read by a consumer in another network namespace."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import AsyncIterator
from ipaddress import IPv6Address
from pathlib import Path

import pytest
import pytest_asyncio
from namespaces import Wire, run
from node_under_test import NAMESPACE, Node, running, until
from proxy_world import FedMirror, Signed, World, member

from hypermesh import addressing, operations
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_agent.enforcement import cgroups
from hypermesh_agent.proxy import removal
from hypermesh_agent.proxy.kernel import NetlinkKernel
from hypermesh_clients.kube_resources import PROXY_MAPPINGS

MIB = 1 << 20
MEMORY, STORAGE = ledger_pb2.ASSET_TYPE_MEMORY, ledger_pb2.ASSET_TYPE_STORAGE
CPU, GPU = ledger_pb2.ASSET_TYPE_CPU, ledger_pb2.ASSET_TYPE_GPU


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(
    world: World, wire: Wire, kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Node]:
    async with running(world, wire, kubeconfig, tmp_path_factory.mktemp("node"), FedMirror(world)) as made:
        await made.start()
        yield made
        await made.stop()
        gc.collect()  # the agent's descriptors are open in this process
        assert removal.remove(made.config) == []


pytestmark = pytest.mark.asyncio(loop_scope="module")


def elements() -> dict[str, tuple[str, int]]:
    """Proxy address -> target, by the nft program."""
    shown = json.loads(run("nft", "-j", "list", "map", "ip6", "hypermesh", "endpoints"))
    (found,) = [item["map"] for item in shown["nftables"] if "map" in item]
    return {name["elem"]["val"]["concat"][0]: tuple(value["concat"]) for name, value in found.get("elem", [])}


def address(signed: Signed) -> str:
    return str(IPv6Address(signed.operation.address))


def fed(node: Node) -> FedMirror:
    assert isinstance(node.mirror, FedMirror)
    return node.mirror


def groups_of(node: Node) -> cgroups.Cgroups:
    return cgroups.find(node.config.cgroup_root, Path("/proc/self/cgroup").read_text())


async def granted(node: Node, name: str, type_: int = MEMORY, amount: int = 4 * MIB) -> Signed:
    """An allocation, committed, announced, and Programmed."""
    signed = node.world.allocation(type_, amount)
    fed(node).commit(signed)
    await node.announce(signed, name)
    await node.condition(name, "True")
    return signed


async def test_memory_from_another_namespace(node: Node) -> None:
    signed = await granted(node, "memory", amount=8 * MIB)
    assert elements()[address(signed)] == (str(node.wire.here), 7443)
    status = await node.condition("memory", "True")
    assert status["observed"]["targetAddress"] == str(node.wire.here)
    said = await node.use(
        signed,
        """
d = await client.describe()
print(d.address, d.type, d.node_name, d.asset_name, d.amount, d.size, d.expires_ms)
assert await client.read(0, d.size) == bytes(d.size)
data = bytes(range(256)) * (3 * 1024 * 1024 // 256) + b"end"
seen = []
await client.write(4097, data, lambda done, whole: seen.append((done, whole)))
assert seen[-1] == (len(data), len(data)) and len(seen) == 4
assert await client.read(4097, len(data)) == data
assert await client.read(d.size, 0) == b""
assert (await client.read(4096, 2))[0] == 0
print("good")
""",
    )
    expected = f"{address(signed)} {MEMORY} node-1 node-1-numa-0 {8 * MIB} {8 * MIB} {signed.record.expires_ms}"
    assert said.splitlines() == [expected, "good"]
    assert groups_of(node).memory.memory_usage(signed.operation.allocation_id.hex()) >= 8 * MIB


async def test_storage_cpu_and_gpu(node: Node) -> None:
    storage = await granted(node, "storage", STORAGE)
    deeds = "await client.write(1, b'kept'); print(await client.read(0, 6))"
    assert await node.use(storage, deeds) == repr(b"\0kept\0")
    cpu = await granted(node, "cpu", CPU, 2000)
    gpu = await granted(node, "gpu", GPU, 1 << 30)
    for signed, type_ in ((cpu, CPU), (gpu, GPU)):
        said = await node.use(signed, "d = await client.describe(); print(d.type, d.size); await client.read(0, 1)")
        first, second = said.splitlines()
        assert first == f"{type_} 0"
        assert second.startswith("NotAddressable |")
    assert groups_of(node).cpu.cpu_millicores(cpu.operation.allocation_id.hex()) == 2000


async def test_refusals_at_the_address(node: Node) -> None:
    signed, other = await granted(node, "mine"), await granted(node, "other")
    read = "print(await client.read(0, 16))"
    assert (await node.use(signed, read, token="wrong")).startswith("TokenWrong |")
    assert (await node.use(signed, read, token=other.token)).startswith("TokenWrong |")
    assert (await node.use(signed, f"print(await client.read({4 * MIB - 1}, 2))")).startswith("OutOfRange |")
    assert (await node.use(signed, f"await client.write({1 << 62}, b'x')")).startswith("OutOfRange |")
    raw = "from hypermesh.v1 import resource_pb2 as r\n"
    long = raw + f"await client._call(client._stub.Read, r.ReadRequest(offset=0, length={MIB + 1}))"
    assert (await node.use(signed, long)).startswith("TooLarge |")
    huge = raw + f"await client._call(client._stub.Write, r.WriteRequest(offset=0, data=bytes({2 * MIB})))"
    assert "larger than max" in await node.use(signed, huge)
    unmapped = addressing.node_prefix_of(IPv6Address(address(signed)))[1 << 36]
    said = await node.use(signed, read, address=str(unmapped))
    assert said.startswith("Unreachable |"), said
    assert "run where the federation's addresses are routed" in said
    assert await node.use(signed, read) == repr(bytes(16)), "refusals harmed nobody"


async def test_the_address_of_the_metadata_must_be_this_nodes(node: Node) -> None:
    signed = await granted(node, "foreign")
    foreign = addressing.parse("fd00::1").address
    lie = f"client._metadata = (client._metadata[0], ('hypermesh-address', '{foreign}'))\nawait client.describe()"
    assert (await node.use(signed, lie)).startswith("AddressForeign |")
    free = node.world.here.prefix[1 << 37]
    lie = f"client._metadata = (client._metadata[0], ('hypermesh-address', '{free}'))\nawait client.describe()"
    assert (await node.use(signed, lie)).startswith("NoSuchMapping |")
    bare = "client._metadata = (('hypermesh-address', str(client.address)),)\nawait client.describe()"
    assert (await node.use(signed, bare)).startswith("TokenMissing |")


async def test_a_server_that_is_not_this_node_is_not_spoken_to(node: Node) -> None:
    """The name in the TLS certificate follows from the address: a client that expects another node hangs up."""
    signed = await granted(node, "impostor")
    elsewhere = str(IPv6Address(int(IPv6Address(address(signed))) ^ 1 << 41))
    deeds = (
        "from hypermesh_clients import resource as r\n"
        "import grpc\n"
        f"wrong = r.addressing.tls_name(r.IPv6Address('{elsewhere}'))\n"
        "ca = open(sys.argv[1], 'rb').read() if len(sys.argv) > 1 else None\n"
        "async with r.ResourceClient(str(client.address), 'x', CA, patience=0) as it: await it.describe()"
    )
    path = node.config.state / "ca.crt"
    deeds = deeds.replace("CA,", f"open({str(path)!r}, 'rb').read(),").replace(
        "async with", "r.addressing.tls_name = lambda _: wrong\nasync with"
    )
    said = await node.use(signed, deeds)
    assert said.startswith("Unreachable |"), said


async def test_damaged_records_are_refused_with_the_reason_and_never_programmed(node: Node) -> None:
    world = node.world
    flipped = world.allocation()
    envelope = bytearray(flipped.record.envelope)
    envelope[-1] ^= 1
    flipped.record.envelope = bytes(envelope)
    flipped.record.tx_hash = operations.tx_hash(flipped.record.envelope)
    outside = world.operation()
    fields = addressing.parse(outside.allocate.address)
    foreign = addressing.Fields(b"other", fields.cluster, fields.node, fields.type, fields.asset)
    outside.allocate.address = foreign.address.packed
    stranger = member(world.root, trust_pb2.ROLE_OPERATOR, "stranger")
    over, now = world.operation(), time.time_ns() // 1_000_000
    over.allocate.lease_seconds = 1
    cases = [
        ("flipped", flipped, "BadSignature"),
        ("outside", world.signed(outside), "AddressWrong"),
        ("unsigned", world.signed(world.operation(), stranger), "UnknownSigner"),
        ("past", world.signed(over, granted_ms=now - 2_000, expires_ms=now - 1_000), "Expired"),
    ]
    before = elements()
    for name, signed, reason in cases:
        fed(node).commit(signed)
        await node.announce(signed, name)
        status = await node.condition(name, "False")
        (condition,) = status["conditions"]
        assert condition["reason"] == reason, condition
        assert "node node-1 refuses the mapping" in condition["message"]
        assert "observed" not in status
    assert elements() == before
    fed(node).feed(ledger_pb2.Change(node=stranger.record))
    await node.condition("unsigned", "True")  # the signer's enrolment was only late


async def test_proxy_mappings_that_do_not_agree_with_the_ledger(node: Node) -> None:
    signed = node.world.allocation()
    fed(node).commit(signed)
    await node.announce(signed, "differs", address=str(node.world.here.prefix[77]))
    status = await node.condition("differs", "False")
    assert status["conditions"][0]["reason"] == "MappingDiffers"
    invented = node.world.allocation()
    await node.announce(invented, "invented", ledgerHeight=3)
    status = await node.condition("invented", "False")
    assert status["conditions"][0]["reason"] == "NoSuchAllocation"
    early = node.world.allocation()
    await node.announce(early, "early", ledgerHeight=1_000)
    await asyncio.sleep(0.3)
    assert "status" not in await node.kube.get(PROXY_MAPPINGS, "early", NAMESPACE)
    fed(node).commit(early)
    await node.condition("early", "True")


async def test_release_takes_everything_down(node: Node) -> None:
    signed = await granted(node, "released")
    name = signed.operation.allocation_id.hex()
    assert (node.config.state / "memory" / name).exists()
    fed(node).end(signed)
    status = await node.condition("released", "False")
    assert status["conditions"][0]["reason"] == "AllocationEnded"

    async def gone() -> bool:
        return address(signed) not in elements()

    await until(gone, "the mapping to go")
    assert not (node.config.state / "memory" / name).exists()
    assert name not in groups_of(node).memory.names()
    assert (await node.use(signed, "await client.describe()")).startswith("Unreachable |")


async def test_a_lease_ends_at_the_node_even_if_the_ledger_is_silent(node: Node) -> None:
    for seconds in (2, 8, 32):  # a busy machine may need longer than a lease to start the consumer
        operation = node.world.operation(amount=MIB)
        operation.allocate.lease_seconds = seconds
        signed = node.world.signed(operation)
        fed(node).commit(signed)
        hold = (
            "import asyncio, time\n"
            "print(len(await client.read(0, 5)))\n"
            f"await asyncio.sleep(max(0, {signed.record.expires_ms} / 1000 - time.time()) + 0.05)\n"
            "await client.read(0, 5)"
        )
        said = (await node.use(signed, hold)).splitlines()  # one connection: once it stands, only the desk can refuse
        if said[0] == "5":
            break
    first, second = said
    assert first == "5"
    assert second.startswith("LeaseEnded |")

    async def gone() -> bool:
        return address(signed) not in elements()

    await until(gone, "the kernel to drop the mapping by itself", 10)


async def test_a_restart_keeps_bytes_and_mappings(node: Node) -> None:
    signed = await granted(node, "restart")
    await node.use(signed, "await client.write(100, b'before the restart')")
    before = elements()
    await node.stop()
    assert elements() == before, "the kernel goes on without the agent"
    await node.start()
    assert elements().keys() == before.keys()
    assert await node.use(signed, "print(await client.read(100, 18))") == repr(b"before the restart")


async def test_drift_of_mappings_and_routes_is_repaired(node: Node) -> None:
    signed = await granted(node, "drift")
    run("nft", f"delete element ip6 hypermesh endpoints {{ {address(signed)} . tcp . 7443 }}")
    run("ip", "-6", "route", "flush", "table", "all", "proto", "88")

    async def back() -> bool:
        return address(signed) in elements() and str(node.world.here.prefix) in run(
            "ip", "-6", "route", "show", "table", "all", "proto", "88"
        )

    await until(back, "the repair", 20)
    assert await node.use(signed, "print((await client.describe()).size)") == str(4 * MIB)


async def test_peers_are_routed_through_their_nodes(node: Node) -> None:
    peer = member(node.world.root, trust_pb2.ROLE_NODE, "node-2")
    prefix = addressing.node_prefix(node.world.here.federation, 1, peer.key_id, 0)
    impostor = member(peer.keypair, trust_pb2.ROLE_NODE, "node-2")
    fed(node).feed(ledger_pb2.Change(node=impostor.record), ledger_pb2.Change(node=peer.record))

    async def routed() -> list[dict[str, str]]:
        shown = json.loads(run("ip", "-6", "-j", "route", "show", "proto", "88"))
        return [entry for entry in shown if entry["dst"] == str(prefix)]

    (route,) = await until(routed, "the route to node-2")
    assert route["gateway"] == str(node.wire.there)
    assert len(json.loads(run("ip", "-6", "-j", "route", "show", "proto", "88"))) == 1, "the impostor got no route"


async def test_garbage_on_the_port_harms_nobody(node: Node) -> None:
    """Random bytes, half handshakes, HTTP/2 frames inside TLS: each connection ends, the service goes on."""
    signed = await granted(node, "fuzzed")
    await node.use(signed, "await client.describe()")
    program = [str(Path(__file__).with_name("garbage.py")), address(signed)]
    program += [addressing.tls_name(IPv6Address(address(signed))), str(node.config.state / "ca.crt")]
    process = await asyncio.create_subprocess_exec(
        *node.wire.consumer(sys.executable, *program), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await asyncio.wait_for(process.communicate(), 180)
    assert said == b"done\n"
    malformed = (
        "import grpc, os\n"
        "call = lambda name, **k: client._channel.unary_unary('/hypermesh.v1.Resource/' + name, **k)\n"
        "codes = set()\n"
        "for size in list(range(0, 64)) + [1000, 100000]:\n"
        "  for name in ('Read', 'Write', 'Describe', 'Nothing'):\n"
        "    try: await call(name)(os.urandom(size), metadata=client._metadata, timeout=10)\n"
        "    except grpc.aio.AioRpcError as error: codes.add(error.code().name)\n"
        "print(sorted(codes))"
    )
    codes = await node.use(signed, malformed)
    assert "UNIMPLEMENTED" in codes
    assert "UNAVAILABLE" not in codes
    assert await node.use(signed, "print((await client.describe()).size)") == str(4 * MIB)


async def test_five_hundred_at_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst is programmed in a handful of transactions and every ProxyMapping says so."""
    sizes: list[int] = []
    change = NetlinkKernel.change

    def counted(self: NetlinkKernel, difference: object) -> None:
        sizes.append(len(difference.add))  # type: ignore[attr-defined]
        change(self, difference)  # type: ignore[arg-type]

    monkeypatch.setattr(NetlinkKernel, "change", counted)
    types = [(MEMORY, 65536), (STORAGE, 65536), (CPU, 10), (GPU, 1)]
    burst = [node.world.allocation(*types[number % 4]) for number in range(500)]
    slots = asyncio.Semaphore(16)

    async def announce(number: int, signed: Signed) -> None:
        async with slots:
            await node.announce(signed, f"burst-{number}")

    await asyncio.gather(*(announce(number, signed) for number, signed in enumerate(burst)))
    begin = time.monotonic()
    fed(node).commit(*burst)

    async def all_told() -> bool:
        await asyncio.sleep(0.2)  # listing them costs the API server and this loop more than the burst itself
        found = await node.kube.list(PROXY_MAPPINGS, NAMESPACE)
        said = [
            item.get("status", {}).get("conditions", [{}])[0].get("status")
            for item in found
            if item["metadata"]["name"].startswith("burst-")
        ]
        return said.count("True") == 500

    await until(all_told, "500 ProxyMappings to be programmed", 120)
    print(f"500 mappings in {time.monotonic() - begin:.2f} s, {len(sizes)} transactions of {sizes}", file=sys.stderr)
    assert sum(sizes) == 500
    assert len(sizes) <= 100
    shown = elements()
    assert all(address(signed) in shown for signed in burst)
    for signed in burst:
        fed(node).end(signed)

    async def all_gone() -> bool:
        shown = elements()
        return not any(address(signed) in shown for signed in burst)

    await until(all_gone, "500 mappings to go", 60)
    names = {signed.operation.allocation_id.hex() for signed in burst}
    left = {item.name for item in (node.config.state / "memory").iterdir()} & names
    assert left == set()
