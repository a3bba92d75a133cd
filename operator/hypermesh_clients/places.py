"""A node's side of being measured: one session with one validator (hypermesh.places).

greeting -> hello (signed) -> each challenge answered at once -> were they the validator's own? -> the secret
         -> Bound | NotMeasured
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio

from hypermesh import falcon, places
from hypermesh.v1 import ledger_pb2_grpc, place_pb2
from hypermesh_clients.ledger import channel_to

CONNECT_MS: Final = 10_000
"""There is one attempt, and the other end may be far away."""
SESSION_S: Final = 30.0
"""Longer than the validator's own patience."""

Said = place_pb2.MeasureRequest
Heard = place_pb2.MeasureResponse


class NotMeasured(Exception):
    """The validator does not measure this node, now or at all; the message is its own, or what went wrong with it."""


class StillFresh(NotMeasured):
    """It has measured this node lately."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a validator found, and which (20 bytes; its own word for itself)."""

    validator: bytes
    microseconds: int
    epoch: int


async def be_measured(
    target: str, ca_pem: bytes, server_name: str | None, keypair: falcon.KeyPair, chain_id: str
) -> Measured:
    """Call one ledger, for as long as one session takes. Raises NotMeasured."""
    async with channel_to(target, ca_pem, server_name, CONNECT_MS) as channel:
        return await measured_by(channel, target, keypair, chain_id)


async def measured_by(channel: grpc.aio.Channel, target: str, keypair: falcon.KeyPair, chain_id: str) -> Measured:
    """One session with the ledger at the other end, which messages call `target`. Raises NotMeasured."""
    call = ledger_pb2_grpc.LedgerStub(channel).Measure()  # type: ignore[no-untyped-call]
    try:
        async with asyncio.timeout(SESSION_S):
            return await _session(call, keypair, chain_id)
    except TimeoutError as error:
        raise NotMeasured(f"{target} did not measure this node within {SESSION_S:.0f} s") from error
    except grpc.aio.AioRpcError as error:
        known = error.code() == grpc.StatusCode.ALREADY_EXISTS
        text = f"{target} does not measure this node ({error.code().name}: {error.details()})"
        raise (StillFresh if known else NotMeasured)(text) from error
    except asyncio.InvalidStateError as error:  # gRPC's, of a write into a call that the other end has ended
        raise NotMeasured(f"{target} ended the call early (code {await call.code()})") from error


async def _session(call: grpc.aio.StreamStreamCall, keypair: falcon.KeyPair, chain_id: str) -> Measured:
    greeting = (await _heard(call, "greeting")).greeting
    if (len(greeting.validator), len(greeting.nonce)) != (places.VALIDATOR_BYTES, places.NONCE_BYTES):
        raise NotMeasured("the ledger's greeting names no validator and nonce")
    secret = secrets.token_bytes(places.SECRET_BYTES)
    committed = places.commitment(secret)
    signature = await asyncio.to_thread(
        places.sign_session, keypair.secret, chain_id, greeting.validator, greeting.nonce, committed
    )
    hello = Said.Hello(node=keypair.key_id(), commitment=committed, signature=signature)
    await call.write(Said(hello=hello))
    asked: list[bytes] = []
    for number in range(places.ROUNDS):
        asked.append((await _heard(call, "challenge")).challenge)
        await call.write(Said(answer=places.answer(secret, number, asked[-1])))
    if not places.asked_rightly(greeting.nonce, (await _heard(call, "seed")).seed, asked):
        raise NotMeasured("the challenges are not those of the validator that the ledger says it is")
    await call.write(Said(secret=secret))
    bound = (await _heard(call, "bound")).bound
    return Measured(greeting.validator, bound.microseconds, bound.epoch)


async def _heard(call: grpc.aio.StreamStreamCall, what: str) -> Heard:
    heard = await call.read()
    if heard is grpc.aio.EOF:
        raise NotMeasured(f"the ledger ended before its {what}; code {await call.code()}: {await call.details()}")
    said = heard.WhichOneof("said") if isinstance(heard, Heard) else None  # None is gRPC's word for what doesn't parse
    if said != what:
        raise NotMeasured(f"the ledger says {said} where its {what} is due")
    found: Heard = heard
    return found
