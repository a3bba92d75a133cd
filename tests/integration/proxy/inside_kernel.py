"""The real kernel's table and routes; `nft` and `ip` are only the independent readers (and the saboteurs)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address, IPv6Network
from typing import Any

import pytest
from memory_kernel import MemoryKernel
from namespaces import Wire, run

from hypermesh_agent.proxy.kernel import Diverged, Kernel, NetlinkKernel
from hypermesh_agent.proxy.mappings import Difference, Key, Target, difference
from hypermesh_agent.proxy.netlink import Socket
from hypermesh_agent.proxy.programming import Programmer
from hypermesh_agent.proxy.routes import Route, RouteError, RouteTable

OWN = IPv6Network("fd12:3456:789a:1:1122:3300::/88")
PEER = IPv6Network("fd12:3456:789a:1:1122:4400::/88")
PORT = 7443
NODE = IPv6Address("2001:db8::1")


def now() -> int:
    return time.time_ns() // 1_000_000


def key(number: int) -> Key:
    return Key(OWN[number].packed, 6, PORT)


def target(address: IPv6Address, seconds: float = 3600, port: int = PORT) -> Target:
    return Target(address.packed, port, now() + int(seconds * 1000))


def table(count: int) -> dict[Key, Target]:
    return {key(number): target(NODE) for number in range(count)}


def nft_elements() -> dict[str, tuple[str, int, int]]:
    """Proxy address -> (target, port, seconds left), as the nft program reads them."""
    ruleset = json.loads(run("nft", "-j", "list", "map", "ip6", "hypermesh", "endpoints"))
    (found,) = [item["map"] for item in ruleset["nftables"] if "map" in item]
    assert found["type"] == ["ipv6_addr", "inet_proto", "inet_service"]
    elements = {}
    for name, value in found.get("elem", []):
        address, protocol, port = name["elem"]["val"]["concat"]
        assert (protocol, port) == ("tcp", PORT)
        elements[address] = (*value["concat"], name["elem"]["expires"])
    return elements


@pytest.fixture
def kernel(loopback: None) -> Iterator[NetlinkKernel]:
    made = NetlinkKernel()
    yield made
    made.drop()
    made.close()


@pytest.mark.parametrize("double", [False, True], ids=["kernel", "double"])
def test_kernel_double_is_faithful(kernel: NetlinkKernel, double: bool) -> None:
    """The same steps, the same answers, by the kernel and by its in-memory double."""
    it: Kernel = MemoryKernel() if double else kernel
    assert not it.intact(OWN)
    with pytest.raises(Diverged):
        it.read()
    assert it.read([key(1)]) == {}
    assert it.read([key(number) for number in range(100)]) == {}
    with pytest.raises(Diverged):
        it.change(Difference({key(1): target(OWN[1])}, frozenset()))
    it.drop()
    first = table(3)
    it.rebuild(OWN, first)
    assert it.intact(OWN)
    assert not it.intact(PEER)
    assert not difference(first, it.read())
    assert it.read([key(0), key(9)]).keys() == {key(0)}
    before = it.generation()
    assert before == it.generation()
    it.change(Difference({key(5): target(OWN[1])}, frozenset([key(0)])))
    assert it.generation() != before
    assert it.read().keys() == {key(1), key(2), key(5)}
    with pytest.raises(Diverged):
        it.change(Difference({key(6): target(OWN[1])}, frozenset([key(0)])))
    assert it.read().keys() == {key(1), key(2), key(5)}, "a refused transaction leaves everything as it was"
    moved = target(OWN[7])
    it.change(Difference({key(1): moved}, frozenset([key(1)])))
    assert it.read([key(1)])[key(1)].address == moved.address
    it.drop()
    assert not it.intact(OWN)


def test_nft_reads_what_we_wrote(kernel: NetlinkKernel) -> None:
    kernel.rebuild(OWN, {key(1): target(IPv6Address("2001:db8::1"), 3600), key(2): target(OWN[9], 60, 99)})
    elements = nft_elements()
    address, port, left = elements[str(OWN[1])]
    assert (address, port) == ("2001:db8::1", PORT)
    assert 3590 <= left <= 3600
    assert elements[str(OWN[2])][:2] == (str(OWN[9]), 99)
    text = run("nft", "-s", "list", "table", "ip6", "hypermesh")
    rule = f"ip6 daddr {OWN} dnat ip6 to ip6 daddr . meta l4proto . tcp dport map @endpoints"
    assert text.count(rule) == 2
    assert f"ip6 daddr {OWN} reject with tcp reset" in text
    assert "type nat hook prerouting" in text
    assert "type nat hook output" in text


def test_nft_takes_no_mark_for_a_comment(kernel: NetlinkKernel) -> None:
    """Of this prefix a rule's digest, alone, would be one: bytes that are no text."""
    kernel.rebuild(IPv6Network("fd12:9d9a:ad15:2b67:d22:2b00::/88"), {})
    assert "comment" not in run("nft", "list", "table", "ip6", "hypermesh")


def test_twenty_five_thousand_mappings(kernel: NetlinkKernel) -> None:
    wanted = table(25_000)
    kernel.rebuild(OWN, wanted)
    until = time.monotonic() + 60
    # a dump while the kernel still resizes its hash table may lack some; one written late under load ends late
    while wrong := difference(wanted, kernel.read()):
        assert time.monotonic() < until, f"{len(wrong.add)} elements do not come, {len(wrong.remove)} are others"
        if wrong.remove:
            with contextlib.suppress(Diverged):
                kernel.change(wrong)
        time.sleep(0.05)
    kernel.change(Difference({}, frozenset(list(wanted)[:20_001])))
    while len(nft_elements()) != 4_999:
        assert time.monotonic() < until, f"nft reads {len(nft_elements())} elements"
        time.sleep(0.05)


def test_a_read_that_was_held_up_shows_the_same_mappings(loopback: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under load seconds pass between the kernel's answer and our look at the clock."""
    late = 0

    def held_up(deed: Callable[..., Any]) -> Callable[..., Any]:
        def answer(*arguments: Any) -> Any:
            nonlocal late
            said = deed(*arguments)
            late += 10_000
            return said

        return answer

    kernel = NetlinkKernel(lambda: now() + late)
    wanted = {key(1): target(NODE)}
    kernel.rebuild(OWN, wanted)
    monkeypatch.setattr(Socket, "dump", held_up(Socket.dump))
    monkeypatch.setattr(Socket, "ask", held_up(Socket.ask))
    try:
        for keys in (None, wanted):
            late = 0
            assert not difference(wanted, kernel.read(keys))
            assert late
    finally:
        kernel.drop()
        kernel.close()


def test_an_element_ends_with_its_lease(kernel: NetlinkKernel) -> None:
    for seconds in (0.3, 3, 30):  # a busy machine may read after the shortest has ended
        kernel.rebuild(OWN, {key(1): target(OWN[9], seconds), key(2): target(OWN[9], 3600)})
        found = kernel.read()
        if key(1) in found:
            break
    assert found.keys() == {key(1), key(2)}
    until = time.monotonic() + seconds + 10
    while key(1) in kernel.read():
        assert time.monotonic() < until
        time.sleep(0.05)
    assert kernel.read().keys() == {key(2)}
    assert nft_elements().keys() == {str(OWN[2])}


@pytest.mark.parametrize(
    "sabotage",
    [
        f"delete element ip6 hypermesh endpoints {{ {OWN[1]} . tcp . 7443 }}",
        f"add element ip6 hypermesh endpoints {{ {OWN[77]} . tcp . 7443 timeout 1h : 2001:db8::bad . 22 }}",
        "flush map ip6 hypermesh endpoints",
        "add rule ip6 hypermesh input accept",
        "insert rule ip6 hypermesh prerouting return",
        "flush chain ip6 hypermesh input",
        "delete table ip6 hypermesh",
    ],
)
async def test_an_audit_repairs_what_nft_broke(kernel: NetlinkKernel, sabotage: str) -> None:
    programmer = Programmer(kernel, OWN)
    await programmer.start({})
    wanted = table(3)
    assert await programmer.apply(wanted) == wanted.keys()
    await programmer.audit()
    assert await programmer.audit() == 0
    before = run("nft", "-s", "list", "table", "ip6", "hypermesh")
    run("nft", sabotage)
    assert await programmer.audit() > 0
    assert kernel.intact(OWN)
    assert not difference(wanted, kernel.read())
    after = run("nft", "-s", "list", "table", "ip6", "hypermesh")
    assert after.count("reject") == before.count("reject")
    assert after.count("dnat") == before.count("dnat")


def test_other_tables_are_left_alone(kernel: NetlinkKernel) -> None:
    run("nft", "add table ip6 somebody; add chain ip6 somebody c { type nat hook prerouting priority -100; }")
    kernel.rebuild(OWN, table(1))
    kernel.drop()
    assert run("nft", "list", "tables").split() == ["table", "ip6", "somebody"]
    run("nft", "delete table ip6 somebody")


def test_without_the_privilege_the_kernels_words_are_told(kernel: NetlinkKernel) -> None:
    program = (
        "import os, ipaddress\n"
        "from hypermesh_agent.proxy.kernel import NetlinkKernel\n"
        "os.setuid(65534)\n"
        "try: NetlinkKernel().rebuild(ipaddress.IPv6Network('fd00::/88'), {})\n"
        "except PermissionError as error: print(error.strerror)\n"
    )
    assert run(sys.executable, "-c", program).strip() == "Operation not permitted"
    assert run("nft", "list", "tables") == ""


# -- packets ---------------------------------------------------------------------------------------------


async def echo(address: IPv6Address, port: int = PORT) -> asyncio.Server:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(b"node:" + data)
            await writer.drain()

    return await asyncio.start_server(answer, str(address), port, family=socket.AF_INET6)


def ask(address: IPv6Address, port: int = PORT) -> str:
    """A client program: prints the answer, or the name of the error."""
    return (
        "import errno, socket, sys\n"
        f"try:\n s = socket.create_connection(({str(address)!r}, {port}), 5); s.sendall(b'hello')\n"
        " print(s.recv(100).decode(), s.getpeername()[0])\n"
        "except OSError as e: print(errno.errorcode.get(e.errno, type(e).__name__))\n"
    )


async def output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await asyncio.wait_for(process.communicate(), 30)
    return said.decode().strip()


async def test_packets_find_the_node_and_nothing_else(kernel: NetlinkKernel, wire: Wire) -> None:
    """From the consumer's namespace and from the node itself; the host's other listeners stay out of reach."""
    routes = RouteTable()
    routes.add(Route(OWN, None, wire.here))
    wire.route(OWN)
    kernel.rebuild(OWN, {key(1): target(wire.here)})
    mapped, unmapped = OWN[1], OWN[2]
    async with await echo(wire.here), await echo(IPv6Address("::"), 2222):
        for place in (wire.consumer(sys.executable), [sys.executable]):
            assert await output(*place, "-c", ask(mapped)) == f"node:hello {mapped}"
            assert await output(*place, "-c", ask(unmapped)) == "ECONNREFUSED"
            assert await output(*place, "-c", ask(unmapped, 2222)) == "ECONNREFUSED", "a host listener was reached"
            assert await output(*place, "-c", ask(mapped, 2222)) == "ECONNREFUSED", "a host listener was reached"
        kernel.change(Difference({}, frozenset([key(1)])))
        assert await output(*wire.consumer(sys.executable), "-c", ask(mapped)) == "ECONNREFUSED"
    routes.remove(Route(OWN, None, wire.here))
    routes.close()


async def test_a_connection_survives_restart_rebuild_and_the_end_of_its_mapping(
    kernel: NetlinkKernel, wire: Wire
) -> None:
    routes = RouteTable()
    routes.add(Route(OWN, None, wire.here))
    wire.route(OWN)
    programmer = Programmer(kernel, OWN)
    await programmer.start({})
    wanted = {key(1): target(wire.here)}
    await programmer.apply(wanted)
    client = (
        "import socket, sys\n"
        f"s = socket.create_connection(({str(OWN[1])!r}, {PORT}), 5)\n"
        "for line in sys.stdin:\n s.sendall(line.strip().encode()); print(s.recv(100).decode(), flush=True)\n"
    )
    async with await echo(wire.here):
        process = await asyncio.create_subprocess_exec(
            *wire.consumer(sys.executable, "-c", client),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )

        async def say(word: str) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{word}\n".encode())
            await process.stdin.drain()
            return (await asyncio.wait_for(process.stdout.readline(), 10)).decode().strip()

        assert await say("one") == "node:one"
        again = Programmer(kernel, OWN)
        assert await again.start(wanted) == 0, "a restart must not touch what is right"
        assert await say("two") == "node:two"
        run("nft", "delete table ip6 hypermesh")
        assert await again.audit() > 0
        assert await say("three") == "node:three"
        await again.apply({}, [key(1)])
        assert await say("four") == "node:four"
        process.terminate()
        await process.wait()
    routes.remove(Route(OWN, None, wire.here))
    routes.close()


# -- routes ----------------------------------------------------------------------------------------------


def ip_routes() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("ip", "-6", "-j", "route", "show", "table", "all", "proto", "88"))
    return found


def test_routes_as_ip_reads_them(wire: Wire) -> None:
    routes = RouteTable()
    own, peer = Route(OWN, None, wire.here), Route(PEER, wire.there)
    for route in (own, peer, own, peer):
        routes.add(route)
    shown = {entry["dst"]: entry for entry in ip_routes()}
    assert shown[str(PEER)]["gateway"] == str(wire.there)
    assert (shown[str(OWN)]["type"], shown[str(OWN)]["prefsrc"]) == ("local", str(wire.here))
    assert routes.read() == {OWN: own, PEER: peer}
    other = Route(PEER, IPv6Address("fd00:99::3"))
    routes.add(other)
    assert routes.read()[PEER] == other
    assert len(ip_routes()) == 2
    for route in (own, other, other):
        routes.remove(route)
    assert ip_routes() == []
    with pytest.raises(RouteError, match="fd00:77::1 must be reachable without a router"):
        routes.add(Route(PEER, IPv6Address("fd00:77::1")))
    routes.close()


def test_foreign_routes_are_not_ours(wire: Wire) -> None:
    run("ip", "-6", "route", "add", str(PEER), "via", str(wire.there))
    routes = RouteTable()
    assert routes.read() == {}
    run("ip", "-6", "route", "del", str(PEER))
    routes.close()
