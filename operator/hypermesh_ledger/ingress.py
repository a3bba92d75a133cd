"""The gRPC service Ledger: TLS over IPv6, straight into the application's pool (not through CometBFT's RPC)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, Protocol, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from hypermesh.operations import MAX_ENVELOPE_BYTES
from hypermesh.refusals import Refused
from hypermesh.v1 import ledger_pb2, place_pb2
from hypermesh_ledger import commitment, home, keys, rpc
from hypermesh_ledger.core import Core
from hypermesh_ledger.errors import CometbftSilent, HeightNotKept, IngressUnusable, TooManyLookBack, Undecided
from hypermesh_ledger.execution import Result
from hypermesh_ledger.execution.context import read
from hypermesh_ledger.execution.validators import seats
from hypermesh_ledger.inspection import Inspection
from hypermesh_ledger.watches import TooMany, TooSlow

Record = TypeVar("Record")
Peer = Callable[[int], Awaitable[ledger_pb2.PeerResponse]]
"""Of the asker's height, see PeerRequest."""

CALLS: Final = 4_096
"""Calls under way at most, all clients together; the next one is told to come again."""
CALLS_PER_CONNECTION: Final = 1_024
"""More of them wait at the client."""
MANY: Final = 16_384
"""Operations of SubmitMany under way at most, all clients together."""
PROOFS: Final = 64
"""Proofs and light blocks under way at most."""
ANSWER_S: Final = 0.5
"""How long before a submitter's deadline it is told that nothing is decided: an answer says more than a deadline."""
WRITE_S: Final = 15.0
"""Longest time until a follower takes one message; longer than a mirror's patience with us."""

_OPTIONS: Final = (
    ("grpc.max_concurrent_streams", CALLS_PER_CONNECTION),
    ("grpc.max_receive_message_length", MAX_ENVELOPE_BYTES + 1024),
    ("grpc.max_send_message_length", 16 << 20),
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


class TlsSource(Protocol):
    """Where the service's certificate comes from."""

    def pair(self) -> tuple[bytes, bytes]:
        """(PEM key, PEM chain), now. Raises IngressUnusable."""


class LedgerService:
    """Translates between messages and the core. A request is None when its bytes were no such message."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._proving = 0
        self._inspection = Inspection(core)
        self._many = 0

    async def _answerable(self, request: Record | None, context: Any) -> Record:
        """Before the first block there is no genesis to answer by: UNAVAILABLE, as while the process starts."""
        if not self._core.store.head.height:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the ledger waits for its first block")
        if request is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is not the message of this call")
            raise AssertionError  # abort has raised
        return request

    async def submit(self, raw: ledger_pb2.SubmitRequest | None, context: Any) -> ledger_pb2.SubmitResponse:
        """Answers when the operation is committed, or refused; UNAVAILABLE when it is neither in time."""
        request = await self._answerable(raw, context)
        remaining = context.time_remaining()
        try:
            patience_s = math.inf if remaining is None else remaining - ANSWER_S
            return _response(await self._core.admission.submit(request.envelope, patience_s))
        except Undecided as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            raise AssertionError from error  # abort has raised
        except Refused as refusal:
            return _response(refusal)

    async def submit_many(self, raw: ledger_pb2.SubmitManyRequest | None, context: Any) -> None:
        """Answers in groups, as they come. RESOURCE_EXHAUSTED when too many operations are under way."""
        request = await self._answerable(raw, context)
        count = len(request.envelopes)
        if self._many + count > MANY:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many operations under way; submit again later")
        self._many += count
        try:
            async with aclosing(self._core.admission.submit_many(request.envelopes)) as groups:
                async for group in groups:
                    told = ledger_pb2.SubmitManyResponse()
                    for index, outcome in group:
                        told.answers.add(index=index, response=_response(outcome))
                    async with asyncio.timeout(WRITE_S):
                        await context.write(told)
        except Undecided as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        finally:
            self._many -= count

    async def status(self, raw: ledger_pb2.StatusRequest | None, context: Any) -> ledger_pb2.StatusResponse:
        """The newest committed block and the genesis."""
        await self._answerable(raw, context)
        return self._core.status()

    async def validators(self, raw: ledger_pb2.ValidatorsRequest | None, context: Any) -> ledger_pb2.ValidatorsResponse:
        """All seats and evidence of the newest committed block."""
        await self._answerable(raw, context)
        state = self._core.store.snapshot
        evidence = [ledger_pb2.Evidence.FromString(value) for _, value in state.scan(keys.EVIDENCE)]
        return ledger_pb2.ValidatorsResponse(validators=seats(state), evidence=evidence)

    async def inspect(self, raw: ledger_pb2.InspectRequest | None, context: Any) -> ledger_pb2.InspectResponse:
        """This process, for people."""
        await self._answerable(raw, context)
        return await self._inspection.inspect(context)

    async def transaction(
        self, raw: ledger_pb2.TransactionRequest | None, context: Any
    ) -> ledger_pb2.TransactionRecord:
        """NOT_FOUND when no kept block decided it."""
        request = await self._answerable(raw, context)
        return await self._inspection.transaction(request.tx_hash, context)

    async def block(self, raw: ledger_pb2.BlockRequest | None, context: Any) -> ledger_pb2.BlockResponse:
        """OUT_OF_RANGE for a height that CometBFT does not hold."""
        request = await self._answerable(raw, context)
        return await self._inspection.block(request.height, context)

    async def get_allocation(
        self, raw: ledger_pb2.GetAllocationRequest | None, context: Any
    ) -> ledger_pb2.AllocationRecord:
        """NOT_FOUND when the ledger holds none of that id."""
        request = await self._answerable(raw, context)
        key = keys.allocation(request.allocation_id)
        known = len(request.allocation_id) == 32  # the database refuses long keys by an error
        record = read(self._core.store.snapshot, key, ledger_pb2.AllocationRecord) if known else None
        if record is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such allocation")
            raise AssertionError  # abort has raised
        return record

    async def get_proof(self, raw: ledger_pb2.GetProofRequest | None, context: Any) -> ledger_pb2.GetProofResponse:
        """OUT_OF_RANGE for a height that is not kept, RESOURCE_EXHAUSTED when too many ask, INVALID_ARGUMENT."""
        request = await self._answerable(raw, context)
        if not 0 < len(request.key) < 128 or request.key.startswith((b"x:", commitment.LISTING)):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no state has such a key")
        async with self._one_of_few(context):
            height, proof = await self._core.past.prove(request.key, request.height)
            header, validators = await rpc.signed_header(home.RPC_SOCKET, height + 1)
        steps = [
            ledger_pb2.ProofStep(key=step.key, total=step.total, index=step.index, aunts=step.aunts)
            for step in proof.steps
        ]
        return ledger_pb2.GetProofResponse(
            value=proof.value,
            listing=proof.listing,
            height=height,
            steps=steps,
            signed_header=header,
            validators=validators,
        )

    @asynccontextmanager
    async def _one_of_few(self, context: Any) -> AsyncIterator[None]:
        """Room for one question that keeps the ledger busy, and how its errors are told."""
        if self._proving >= PROOFS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many ask for proofs; ask again later")
        self._proving += 1
        try:
            yield
        except HeightNotKept as error:
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, str(error))
            raise AssertionError from error  # abort has raised
        except TooManyLookBack as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
            raise AssertionError from error  # abort has raised
        except CometbftSilent as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
            raise AssertionError from error  # abort has raised
        finally:
            self._proving -= 1

    async def light_block(
        self, raw: ledger_pb2.LightBlockRequest | None, context: Any
    ) -> ledger_pb2.LightBlockResponse:
        """OUT_OF_RANGE with CometBFT's sentence for a height that is not here, RESOURCE_EXHAUSTED, INVALID_ARGUMENT."""
        request = await self._answerable(raw, context)
        if not 0 < request.height < 1 << 63:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no block has such a height")
        async with self._one_of_few(context):
            commit, validators, terms = await rpc.light_block(home.RPC_SOCKET, request.height)
        return ledger_pb2.LightBlockResponse(commit=commit, validators=validators, consensus_params=terms)

    async def measure(self, _: object, context: Any) -> None:
        """See hypermesh_ledger.measuring."""
        await self._answerable(context, context)
        if self._core.places is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "a ledger without peers measures nobody")
            raise AssertionError  # abort has raised
        await self._core.places.measure(context)

    async def pending(self, _: object, context: Any) -> None:
        """See hypermesh_ledger.telling."""
        await self._answerable(context, context)
        if self._core.telling is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "a ledger without peers tells nobody")
            raise AssertionError  # abort has raised
        try:
            async with aclosing(self._core.telling.listen(context.peer().rpartition(":")[0])) as told:
                async for message in told:
                    async with asyncio.timeout(WRITE_S):
                        await context.write(message)
        except (TooSlow, TimeoutError):
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too slow; listen again")
        except TooMany:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many listen already; listen again later")

    async def watch(self, raw: ledger_pb2.WatchRequest | None, context: Any) -> None:
        """RESOURCE_EXHAUSTED when the follower is too slow, or one too many; it should watch again."""
        request = await self._answerable(raw, context)
        if len(request.node) not in (0, 32):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "node is a key id of 32 bytes, or empty")
        try:
            async with aclosing(self._core.watches.follow(request.node, self._core.status())) as batches:
                async for changes in batches:
                    async with asyncio.timeout(WRITE_S):
                        await context.write(changes)
        except (TooSlow, TimeoutError):
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too slow; watch again")
        except TooMany:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watch already; watch again later")


def _response(outcome: Result | Refused) -> ledger_pb2.SubmitResponse:
    if isinstance(outcome, Refused):
        return ledger_pb2.SubmitResponse(reason=outcome.reason, message=outcome.message)
    reason = "" if outcome.reason is None else outcome.reason.value
    return ledger_pb2.SubmitResponse(
        reason=reason, message=outcome.message, height=outcome.height, tx_hash=outcome.tx_hash
    )


def _handlers(service: LedgerService, peer: Peer | None) -> grpc.GenericRpcHandler:
    """Like the generated registration, but bytes that don't parse are an answer, not an error in the log."""
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    methods = {
        "Submit": _handler(unary, service.submit, ledger_pb2.SubmitRequest),
        "SubmitMany": _handler(stream, service.submit_many, ledger_pb2.SubmitManyRequest),
        "Status": _handler(unary, service.status, ledger_pb2.StatusRequest),
        "GetAllocation": _handler(unary, service.get_allocation, ledger_pb2.GetAllocationRequest),
        "GetProof": _handler(unary, service.get_proof, ledger_pb2.GetProofRequest),
        "Watch": _handler(stream, service.watch, ledger_pb2.WatchRequest),
        "Validators": _handler(unary, service.validators, ledger_pb2.ValidatorsRequest),
        "Inspect": _handler(unary, service.inspect, ledger_pb2.InspectRequest),
        "Transaction": _handler(unary, service.transaction, ledger_pb2.TransactionRequest),
        "Block": _handler(unary, service.block, ledger_pb2.BlockRequest),
        "LightBlock": _handler(unary, service.light_block, ledger_pb2.LightBlockRequest),
        "Measure": _handler(grpc.stream_stream_rpc_method_handler, service.measure, place_pb2.MeasureRequest),
    }
    methods["Pending"] = stream(service.pending)  # its messages are bytes already
    if peer is not None:
        methods["Peer"] = _peer_handler(peer)
    return grpc.method_handlers_generic_handler("hypermesh.v1.Ledger", methods)


def _handler(kind: Callable[..., Any], method: Callable[..., Any], request: type[Message]) -> Any:
    def parse(data: bytes) -> Message | None:
        try:
            return request.FromString(data)
        except DecodeError:
            return None

    return kind(method, request_deserializer=parse, response_serializer=lambda answer: answer.SerializeToString())


def make_server(core: Core, address: str, tls: TlsSource, peer: Peer | None = None) -> tuple[grpc.aio.Server, int]:
    """A server, not started, and its port. address: [ipv6]:port, port 0 for any. Raises IngressUnusable.

    tls is asked at each handshake, so a renewed certificate needs no restart. peer: what Peer answers, of a ledger that
    has peers.
    """
    return _listening(_handlers(LedgerService(core), peer), address, tls)


def make_peer_server(address: str, tls: TlsSource, peer: Peer) -> tuple[grpc.aio.Server, int]:
    """As `make_server`, for the time before there is a chain: it answers Peer, and nothing else."""
    methods = {"Peer": _peer_handler(peer)}
    return _listening(grpc.method_handlers_generic_handler("hypermesh.v1.Ledger", methods), address, tls)


def _peer_handler(peer: Peer) -> Any:
    async def answer(request: ledger_pb2.PeerRequest | None, _: Any) -> ledger_pb2.PeerResponse:
        return await peer(request.height if request is not None else 0)

    return _handler(grpc.unary_unary_rpc_method_handler, answer, ledger_pb2.PeerRequest)


def _listening(handlers: grpc.GenericRpcHandler, address: str, tls: TlsSource) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=CALLS)
    server.add_generic_rpc_handlers((handlers,))
    served = _Served(tls)
    try:
        port = server.add_secure_port(address, grpc.dynamic_ssl_server_credentials(served.first(), served.changed))
    except RuntimeError as error:
        text = f"Can't listen on {address} ({error})."
        raise IngressUnusable(f"{text} Is another ledger there, or are certificate and key no pair?") from error
    return server, port


class _Served:
    """What gRPC serves now, and whether the source has something newer."""

    def __init__(self, tls: TlsSource) -> None:
        self._tls = tls
        self._pair = tls.pair()

    def first(self) -> Any:
        return grpc.ssl_server_certificate_configuration([self._pair])

    def changed(self) -> Any:
        """None keeps what is served."""
        try:
            pair = self._tls.pair()
        except IngressUnusable:
            return None  # in the middle of a renewal; the next handshake asks again
        if pair == self._pair:
            return None
        self._pair = pair
        return self.first()
