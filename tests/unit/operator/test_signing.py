"""Those who wait share a signature, and none of them waits for one who left or erred."""

from __future__ import annotations

import asyncio

import pytest

from hypermesh import falcon, operations
from hypermesh.refusals import Refused
from hypermesh.v1 import ledger_pb2, proofs_pb2
from hypermesh_operator.signing import Keys, Signer

KEYS = Keys(falcon.generate(), b"k" * 32)
REFS = proofs_pb2.TicketRefs(space=b"s" * 32, stake=b"k" * 32, work=b"w" * 32, time=b"t" * 32)


def release(number: int) -> ledger_pb2.Operation:
    allocation_id = number.to_bytes(32, "big")
    return ledger_pb2.Operation(chain_id="c", valid_until_ms=5, release=ledger_pb2.Release(allocation_id=allocation_id))


def verifies(envelope: ledger_pb2.Envelope) -> bool:
    parts = operations.signed_parts(envelope)
    return falcon.verify(KEYS.keypair.public, envelope.signature, operations.SIGNATURE_DOMAIN, *parts)


async def test_many_at_once_share_signatures() -> None:
    signer = Signer(KEYS)
    running = asyncio.create_task(signer.run())
    async with asyncio.timeout(30):
        built = await asyncio.gather(*(signer.sign(release(number), REFS) for number in range(100)))
    running.cancel()
    envelopes = [operations.decode(envelope).envelope for envelope in built]
    assert [ledger_pb2.Operation.FromString(item.operation) for item in envelopes] == [
        release(number) for number in range(100)
    ]
    assert all(verifies(envelope) for envelope in envelopes)
    assert len({envelope.signature for envelope in envelopes}) <= 2


async def test_one_who_left_and_one_who_erred() -> None:
    signer = Signer(KEYS)
    leaving = asyncio.create_task(signer.sign(release(1), REFS))
    erring = asyncio.create_task(signer.sign(release(2), proofs_pb2.TicketRefs()))
    beside = asyncio.create_task(signer.sign(release(4), REFS))
    await asyncio.sleep(0)
    leaving.cancel()
    running = asyncio.create_task(signer.run())
    async with asyncio.timeout(30):
        with pytest.raises(Refused):
            await erring
        assert verifies(operations.decode(await beside).envelope)
        assert verifies(operations.decode(await signer.sign(release(3), REFS)).envelope)
    running.cancel()
