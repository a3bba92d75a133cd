"""The gRPC service Ledger: TLS over IPv6, straight into the application's pool (not through CometBFT's RPC)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

import grpc
import grpc.aio

from hypermesh.operations import MAX_ENVELOPE_BYTES
from hypermesh.refusals import Refused
from hypermesh.v1 import ledger_pb2, ledger_pb2_grpc
from hypermesh_ledger import keys
from hypermesh_ledger.core import Core
from hypermesh_ledger.errors import IngressUnusable
from hypermesh_ledger.execution.context import read
from hypermesh_ledger.watches import TooSlow

_OPTIONS: Final = (
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


class LedgerService(ledger_pb2_grpc.LedgerServicer):
    """Translates between messages and the core."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def _born(self, context: Any) -> None:
        """Before the first block there is no genesis to answer by: UNAVAILABLE, as while the process starts."""
        if not self._core.store.head.height:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the ledger waits for its first block")

    async def Submit(self, request: ledger_pb2.SubmitRequest, context: Any) -> ledger_pb2.SubmitResponse:  # noqa: N802
        """Answers when the operation is committed, or refused."""
        await self._born(context)
        try:
            result = await self._core.submit(request.envelope)
        except Refused as refusal:
            return ledger_pb2.SubmitResponse(reason=refusal.reason, message=refusal.message)
        reason = "" if result.reason is None else result.reason.value
        return ledger_pb2.SubmitResponse(
            reason=reason, message=result.message, height=result.height, tx_hash=result.tx_hash
        )

    async def Status(self, request: ledger_pb2.StatusRequest, context: Any) -> ledger_pb2.StatusResponse:  # noqa: N802
        """The newest committed block and the genesis."""
        await self._born(context)
        return self._core.status()

    async def GetAllocation(  # noqa: N802
        self, request: ledger_pb2.GetAllocationRequest, context: Any
    ) -> ledger_pb2.AllocationRecord:
        """NOT_FOUND when the ledger holds none of that id."""
        key = keys.allocation(request.allocation_id)
        record = read(self._core.store.snapshot, key, ledger_pb2.AllocationRecord)
        if record is not None:
            return record
        raise await context.abort(grpc.StatusCode.NOT_FOUND, "no such allocation")

    async def Watch(  # noqa: N802
        self, request: ledger_pb2.WatchRequest, context: Any
    ) -> AsyncIterator[ledger_pb2.Changes]:
        """RESOURCE_EXHAUSTED when the follower is too slow; it should watch again."""
        await self._born(context)
        if len(request.node) not in (0, 32):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "node is a key id of 32 bytes, or empty")
        try:
            async for changes in self._core.watches.follow(request.node, self._core.status()):
                yield changes
        except TooSlow:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too slow; watch again")


def make_server(core: Core, address: str, tls: TlsSource) -> tuple[grpc.aio.Server, int]:
    """A server, not started, and its port. address: [ipv6]:port, port 0 for any. Raises IngressUnusable.

    tls is asked at each handshake, so a renewed certificate needs no restart.
    """
    server = grpc.aio.server(options=_OPTIONS)
    ledger_pb2_grpc.add_LedgerServicer_to_server(LedgerService(core), server)  # type: ignore[no-untyped-call]
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
