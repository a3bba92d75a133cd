"""Operations through a real ledger: committed once, refused with the reason, never more than there is."""

from __future__ import annotations

import asyncio
import base64
import json

import aiohttp
import grpc
import grpc.aio
import pytest

from hypermesh import operations
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_clients.ledger import Commit, LedgerClient, LedgerUnavailable
from hypermesh_clients.mirror import Mirror

from ...builders import allocation, member, registration
from ..ledger_fixture import Settled

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def refusal(settled: Settled, envelope: bytes) -> Reason:
    with pytest.raises(Refused) as caught:
        await settled.ledger.client.submit(envelope, timeout=30)
    assert caught.value.message
    return caught.value.reason


async def release(settled: Settled, uid: str) -> None:
    asked = allocation(settled.node, settled.cpu, uid, 1)
    operation = ledger_pb2.Release(allocation_id=asked.allocation_id)
    commit = await settled.ledger.submit(settled.operator, settled.refs(), release=operation)
    await settled.ledger.mirror.wait_until(lambda: settled.ledger.mirror.height >= commit.height, 10)


async def test_many_in_one_call(settled: Settled) -> None:
    good = [settled.allocate(f"many-{each}", 1) for each in range(20)]
    before, told = settled.reserved, {}
    async for index, outcome in settled.ledger.client.submit_many([*good, b"no envelope"]):
        told[index] = outcome
    refused = told.pop(20)
    assert isinstance(refused, Refused)
    assert refused.reason is Reason.Malformed
    assert sorted(told) == list(range(20))
    for index, outcome in told.items():
        assert isinstance(outcome, Commit), outcome
        assert outcome.tx_hash == operations.tx_hash(good[index])
    await settled.ledger.mirror.wait_until(lambda: settled.reserved == before + 20, 30)
    for each in range(20):
        await release(settled, f"many-{each}")


async def test_commit_is_seen_everywhere(settled: Settled) -> None:
    ledger, envelope = settled.ledger, settled.allocate("seen", 7)
    before = settled.reserved
    commit = await ledger.client.submit(envelope, timeout=30)
    assert commit.tx_hash == operations.tx_hash(envelope)
    asked = operations.decode(envelope).operation.allocate
    record = await ledger.client.get_allocation(asked.allocation_id)
    assert record is not None
    assert (record.height, record.envelope, record.node) == (commit.height, envelope, settled.node.key_id)
    await ledger.mirror.wait_until(lambda: asked.allocation_id in ledger.mirror.allocations, 10)
    assert settled.reserved == before + 7
    status = await ledger.client.status()
    assert status.chain_id.startswith(f"hypermesh-{ledger.root.federation.hex()}-")
    assert status.genesis.root_public_key == ledger.root.keypair.public
    assert status.height >= commit.height
    assert await ledger.client.get_allocation(b"x" * 32) is None
    again = await ledger.client.submit(envelope, timeout=30)
    assert again.height == commit.height
    await release(settled, "seen")


async def test_the_same_bytes_many_times_at_once(settled: Settled) -> None:
    envelope = settled.allocate("same", 3)
    before = settled.reserved
    commits = await asyncio.gather(*(settled.ledger.client.submit(envelope, timeout=30) for _ in range(20)))
    assert len({commit.height for commit in commits}) == 1
    await settled.ledger.mirror.wait_until(lambda: settled.ledger.mirror.height >= commits[0].height, 10)
    assert settled.reserved == before + 3
    await release(settled, "same")


async def test_500_at_once_for_100_get_exactly_100(settled: Settled) -> None:
    ledger = settled.ledger
    second = await ledger.enrol(trust_pb2.ROLE_OPERATOR, "hypermesh-operator-2")
    envelopes = []
    for index in range(500):
        signer = settled.operator if index % 2 else second
        asked = allocation(settled.node, settled.cpu, f"crowd-{index}", 1)
        envelopes.append(ledger.envelope(signer, settled.refs(signer), allocate=asked))
    clients = [LedgerClient(ledger.target, ledger.ca_pem) for _ in range(4)]
    try:
        work = (clients[index % 4].submit(each, timeout=120) for index, each in enumerate(envelopes))
        outcomes = await asyncio.gather(*work, return_exceptions=True)
    finally:
        await asyncio.gather(*(client.close() for client in clients))
    refusals = [each for each in outcomes if isinstance(each, Refused)]
    assert {each.reason for each in refusals} == {Reason.InsufficientCapacity}
    assert len(outcomes) - len(refusals) == 100
    newest = (await ledger.client.status()).height
    await ledger.mirror.wait_until(lambda: ledger.mirror.height >= newest, 10)
    active = [each for each in ledger.mirror.allocations.values() if each.state == ledger_pb2.ALLOCATION_STATE_ACTIVE]
    assert (settled.reserved, len(active)) == (100, 100)
    uids = [operations.decode(each.envelope).operation.allocate.uid for each in active]
    await asyncio.gather(*(release(settled, uid) for uid in uids))
    newest = (await ledger.client.status()).height
    await ledger.mirror.wait_until(lambda: ledger.mirror.height >= newest, 10)
    assert settled.reserved == 0


async def test_replayed_forged_and_foreign(settled: Settled) -> None:
    ledger = settled.ledger
    envelope = settled.allocate("replay")
    await ledger.client.submit(envelope, timeout=30)
    await release(settled, "replay")
    assert await refusal(settled, envelope) is Reason.AllocationEnded

    stranger = member(ledger.root, trust_pb2.ROLE_OPERATOR, "stranger")
    asked = allocation(settled.node, settled.cpu, "forged", 1)
    forged = ledger_pb2.Envelope.FromString(ledger.envelope(stranger, settled.refs(), allocate=asked))
    assert await refusal(settled, operations.canonical(forged)) is Reason.UnknownSigner
    forged.signer = settled.operator.key_id
    assert await refusal(settled, operations.canonical(forged)) is Reason.BadSignature

    wrong = settled.refs()
    wrong.space = settled.refs().time
    asked = allocation(settled.node, settled.cpu, "foreign", 1)
    assert await refusal(settled, ledger.envelope(settled.operator, wrong, allocate=asked)) is Reason.SpaceTicketForeign
    elsewhere = operations.build(
        ledger.operation(chain_id="hypermesh-elsewhere", allocate=asked),
        settled.operator.keypair.public,
        settled.operator.keypair.secret,
        settled.refs(),
    )
    assert await refusal(settled, elsewhere) is Reason.WrongChain


async def test_truncated_oversized_and_noise(settled: Settled) -> None:
    envelope = settled.allocate("cut")
    for length in (0, 1, 10, len(envelope) // 2, len(envelope) - 1):
        assert await refusal(settled, envelope[:length]) in (
            Reason.Malformed,
            Reason.UnsupportedAlgorithm,
            Reason.BadSignature,
        )
    assert await refusal(settled, envelope + b"\x7a\x01x") is Reason.NotCanonical
    assert await refusal(settled, b"\0" * (operations.MAX_ENVELOPE_BYTES + 1)) is Reason.TooLarge
    with pytest.raises(LedgerUnavailable, match="RESOURCE_EXHAUSTED"):
        await settled.ledger.client.submit(b"\0" * (operations.MAX_ENVELOPE_BYTES + 5000))
    assert (await settled.ledger.client.status()).height > 0


async def test_malformed_grpc(settled: Settled) -> None:
    credentials = grpc.ssl_channel_credentials(settled.ledger.ca_pem)
    async with grpc.aio.secure_channel(settled.ledger.target, credentials) as channel:
        for path, body in (
            ("/hypermesh.v1.Ledger/Submit", b"\xff\xff\xff"),
            ("/hypermesh.v1.Ledger/Nothing", b""),
            ("/hypermesh.v1.Ledger/GetAllocation", b"\x0a\x7f"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(path)(body, timeout=10)
            assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED)
        watch = channel.unary_stream("/hypermesh.v1.Ledger/Watch")
        call = watch(ledger_pb2.WatchRequest(node=b"short").SerializeToString())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    async with grpc.aio.insecure_channel(settled.ledger.target) as plain:
        with pytest.raises(grpc.aio.AioRpcError):
            await plain.unary_unary("/hypermesh.v1.Ledger/Status")(b"", timeout=10)
    assert (await settled.ledger.client.status()).height > 0


async def test_cometbfts_own_door_is_shut(settled: Settled) -> None:
    """Transactions come in by the ledger's service, or from other ledgers; CometBFT's RPC takes none."""
    envelope = settled.allocate("door")
    connector = aiohttp.UnixConnector(str(settled.ledger.home / "run" / "rpc.sock"))
    async with aiohttp.ClientSession(connector=connector) as session:
        for method in ("broadcast_tx_sync", "check_tx"):
            call = {"jsonrpc": "2.0", "id": 1, "method": method}
            call |= {"params": {"tx": base64.b64encode(envelope).decode()}}
            async with session.post("http://rpc/", json=call) as reply:
                answer = json.loads(await reply.text())["result"]
            assert (answer["code"], "Submit it to" in answer["log"]) == (1, True), method
    assert operations.decode(envelope).operation.allocate.allocation_id not in settled.ledger.mirror.allocations


async def test_a_lease_ends_by_itself(settled: Settled) -> None:
    ledger = settled.ledger
    envelope = settled.allocate("brief", 5, lease_seconds=1)
    await ledger.client.submit(envelope, timeout=30)
    allocation_id = operations.decode(envelope).operation.allocate.allocation_id

    def expired() -> bool:
        record = ledger.mirror.allocations.get(allocation_id)
        return record is not None and record.state == ledger_pb2.ALLOCATION_STATE_EXPIRED

    await ledger.mirror.wait_until(expired, 30)
    assert settled.reserved == 0


async def test_a_nodes_mirror_shows_its_own_and_all_nodes(settled: Settled) -> None:
    ledger = settled.ledger
    other = await ledger.enrol(trust_pb2.ROLE_NODE, "node-other")
    client = LedgerClient(ledger.target, ledger.ca_pem)
    mirror = Mirror(client, node=other.key_id)
    following = asyncio.create_task(mirror.run())
    try:
        async with asyncio.timeout(20):
            await mirror.synced.wait()
        await ledger.client.submit(settled.allocate("elsewhere"), timeout=30)
        height = mirror.height
        await mirror.wait_until(lambda: mirror.height > height + 1, 20)
        assert other.key_id in mirror.nodes
        assert settled.node.key_id in mirror.nodes
        assert not mirror.assets
        assert not mirror.allocations
        assert mirror.age() < 10
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await client.close()
        await release(settled, "elsewhere")


async def test_probes_and_metrics(settled: Settled) -> None:
    base = f"http://[::1]:{settled.ledger.metrics_port}"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{base}/readyz") as reply:
            assert (reply.status, await reply.text()) == (200, "[+] chain\n[+] certificate\n")
        async with session.get(f"{base}/metrics") as reply:
            text = await reply.text()
    assert "hypermesh_ledger_height " in text
    assert 'hypermesh_ledger_refused_total{reason="BadSignature",where="ingress"}' in text


async def test_proofs_that_prove_nothing(settled: Settled) -> None:
    """A second node's real proofs, each then spoilt in one place: the refusal names the proof."""
    from hypermesh.proofs import challenge
    from hypermesh_agent.proofs.prover import Prover, WorkDevice

    ledger = settled.ledger
    node = await ledger.enrol(trust_pb2.ROLE_NODE, "node-2")
    device, epoch, params = node.asset_id(1, "cpu-0"), ledger.mirror.epoch, ledger.mirror.parameters
    prover = Prover(ledger.directory / "plots" / "two", node.key_id)
    await prover.ensure_plot(params.space_min_k)
    asked = challenge(ledger.chain_id, epoch.beacon, node.key_id, epoch.number)
    work = await prover.commit_work(asked, [WorkDevice(device)], params)
    early = ledger_pb2.Prove(epoch=epoch.number)
    assert await refusal(settled, ledger.envelope(node, prove=early)) is Reason.NotCommitted
    commitment = ledger_pb2.CommitWork(epoch=epoch.number, commitments=work)
    stolen = ledger_pb2.CommitWork(epoch=epoch.number, commitments=work)
    stolen.commitments[0].device = settled.cpu.asset_id
    assert await refusal(settled, ledger.envelope(node, commit_work=stolen)) is Reason.RoleForbidden
    await ledger.submit(node, commit_work=commitment)
    await ledger.mirror.wait_until(lambda: node.key_id in ledger.mirror.work_seeds, 20)
    changed = ledger_pb2.CommitWork(epoch=epoch.number, commitments=work)
    changed.commitments[0].root = b"r" * 32
    assert await refusal(settled, ledger.envelope(node, commit_work=changed)) is Reason.AlreadyCommitted
    proof = await prover.prove(asked, epoch.number, ledger.mirror.work_seeds[node.key_id], params)

    def spoilt(**fields: bytes) -> bytes:
        copy = ledger_pb2.Prove.FromString(proof.SerializeToString())
        if "space" in fields:
            copy.space.answers[0].proof = fields["space"]
        if "work" in fields:
            copy.work[0].openings[0].values = fields["work"]
        if "time" in fields:
            copy.time.output = fields["time"]
        return ledger.envelope(node, prove=copy)

    first = proof.space.answers[0].proof
    assert await refusal(settled, spoilt(space=bytes(len(first)))) is Reason.SpaceProofInvalid
    values = proof.work[0].openings[0].values
    assert await refusal(settled, spoilt(work=bytes([values[0] ^ 1]) + values[1:])) is Reason.WorkProofInvalid
    output = proof.time.output
    assert await refusal(settled, spoilt(time=output[:-1] + bytes([output[-1] ^ 1]))) is Reason.TimeProofInvalid
    later = ledger_pb2.Prove.FromString(proof.SerializeToString())
    later.epoch = epoch.number + 1
    assert await refusal(settled, ledger.envelope(node, prove=later)) is Reason.EpochWrong
    assert await refusal(settled, ledger.envelope(settled.node, prove=proof)) is Reason.AlreadyProven
    await ledger.submit(node, prove=proof)
    assert await refusal(settled, ledger.envelope(node, prove=proof)) is Reason.AlreadyProven
    foreign = registration(node, 1, "cpu-0", 5)
    refs = ledger.mirror.ticket_refs(settled.node.key_id, settled.cpu.work_device, node.key_id)
    assert await refusal(settled, ledger.envelope(node, refs, register_asset=foreign)) is Reason.SpaceTicketForeign
