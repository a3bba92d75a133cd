"""The gRPC face of the resource service: Describe, Read, Write on [node address]:7443, TLS with the node's certificate.

    call -> authorize (metadata) -> body, within a deadline -> check range -> region -> answer
    every refusal is a gRPC status with reason and text

Who has no right to call is answered before a byte of the body is waited for, so that strangers hold nothing here; and
of those who have it, none can take all the slots. gRPC awaits the body of a unary call before it asks the handler,
therefore the handlers are registered as streaming ones, which are the same on the wire.

Proxy addresses are translated to this one socket, so the address that a caller means travels in the metadata and is
bound to the token. Read answers are packed by hand: one copy from the region's bytes into the message.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message
from prometheus_client import Counter as Metric

from hypermesh.v1 import resource_pb2
from hypermesh_agent.identity import TlsIdentity
from hypermesh_agent.serving.authorization import MAX_TRANSFER, REASON_KEY, Denial, Denied, Desk, Served, check_range

_log = logging.getLogger(__name__)

SERVICE: Final = "hypermesh.v1.Resource"
_OVERHEAD: Final = 64 << 10
_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_TRANSFER + _OVERHEAD),
    ("grpc.max_send_message_length", MAX_TRANSFER + _OVERHEAD),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.max_concurrent_streams", 32),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
)
_CONCURRENT_CALLS: Final = 128
"""With at most 1 MiB each in flight, what callers can make this process hold."""
_CALLS_AN_ADDRESS: Final = 16
_BODY_S: Final = 20.0
"""Time for a body of at most 1 MiB to arrive."""

CALLS: Final = Metric("hypermesh_agent_resource_calls_total", "Calls to proxy addresses", ["method", "outcome"])
BYTES: Final = Metric("hypermesh_agent_resource_bytes_total", "Bytes moved at proxy addresses", ["direction"])

Handler = Callable[[Served, Any], Awaitable[Any]]


class ResourceServer:
    """Serves what the desk has open. `bind`, `start`, then `stop`."""

    def __init__(self, desk: Desk, tls: TlsIdentity, address: str, port: int) -> None:
        self._desk = desk
        self._tls = tls
        self._address = IPv6Address(address)
        self._port = port
        self._server: grpc.aio.Server | None = None

    def bind(self) -> int:
        """Takes the port and returns it; calls wait until `start`. Raises OSError when it cannot be had."""
        server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=_CONCURRENT_CALLS)
        server.add_generic_rpc_handlers((_Calls(self._desk),))
        credentials = grpc.ssl_server_credentials([(self._tls.key_pem, self._tls.chain_pem)])
        try:
            port = server.add_secure_port(f"[{self._address}]:{self._port}", credentials)
        except RuntimeError as error:
            raise OSError(f"[{self._address}]:{self._port} can't be listened on: {error}") from error
        self._server = server
        return int(port)

    async def start(self) -> None:
        """Answers from now on; `bind` first."""
        if self._server is None:
            raise RuntimeError("bind before start")
        await self._server.start()

    async def stop(self, grace_s: float = 1.0) -> None:
        """No new calls; those under way get the grace."""
        if self._server is not None:
            await self._server.stop(grace_s)
            self._server = None


class _Calls(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Decides by method and metadata alone who may go on to send a body."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._under_way: Counter[bytes] = Counter()
        self._methods = {
            f"/{SERVICE}/Describe": _Method("Describe", resource_pb2.DescribeRequest, _describe),
            f"/{SERVICE}/Read": _Method("Read", resource_pb2.ReadRequest, _read),
            f"/{SERVICE}/Write": _Method("Write", resource_pb2.WriteRequest, _write),
        }

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler | None:
        """None for a method that there is not; gRPC answers UNIMPLEMENTED."""
        method = self._methods.get(handler_call_details.method)
        if method is None:
            return None
        metadata = handler_call_details.invocation_metadata
        try:
            served = self._desk.authorize(metadata, _now_ms())
        except Denied as denied:
            return grpc.stream_unary_rpc_method_handler(_refusing(method.name, denied))

        async def answer(_: Any, context: Any) -> Any:
            if self._under_way[served.address] >= _CALLS_AN_ADDRESS:
                text = f"{_CALLS_AN_ADDRESS} calls to {IPv6Address(served.address)} are under way; try again"
                return await _abort(
                    method.name, Denied(grpc.StatusCode.RESOURCE_EXHAUSTED, Denial.TOO_MANY, text), context
                )
            self._under_way[served.address] += 1
            try:
                return await _answer(method, self._desk, metadata, context)
            finally:
                self._under_way[served.address] -= 1
                if not self._under_way[served.address]:
                    del self._under_way[served.address]

        return grpc.stream_unary_rpc_method_handler(answer)


@dataclass(frozen=True, slots=True)
class _Method:
    """handler: served address and request -> serialized response. Raises Denied and OSError."""

    name: str
    request: type[Message]
    handler: Handler


def _refusing(method: str, denied: Denied) -> Callable[[Any, Any], Awaitable[Any]]:
    async def refuse(_: Any, context: Any) -> None:
        await _abort(method, denied, context)

    return refuse


async def _answer(method: _Method, desk: Desk, metadata: Any, context: Any) -> Any:
    """Receives the body and turns a denial, or a failing disk, into the gRPC status that says so."""
    try:
        request = await _receive(method, context)
        response = await method.handler(desk.authorize(metadata, _now_ms()), request)  # the lease may have ended
    except Denied as denied:
        return await _abort(method.name, denied, context)
    except OSError as error:
        _log.error("%s failed in its region: %s", method.name, error)
        text = f"the region's bytes could not be reached: {error.strerror or error}; ask the node's operator"
        return await _abort(method.name, Denied(grpc.StatusCode.DATA_LOSS, Denial.FAILED, text), context)
    CALLS.labels(method.name, "ok").inc()
    return response


async def _receive(method: _Method, context: Any) -> Message:
    try:
        async with asyncio.timeout(_BODY_S):
            body = await context.read()
    except TimeoutError:
        text = f"the request did not arrive within {_BODY_S:g} s of its headers"
        raise Denied(grpc.StatusCode.DEADLINE_EXCEEDED, Denial.REQUEST_LATE, text) from None
    try:
        if isinstance(body, bytes):
            return method.request.FromString(body)
        text = "the call ended without a request"
    except DecodeError as error:
        text = f"the request is no {method.request.DESCRIPTOR.name}: {error}"
    raise Denied(grpc.StatusCode.INVALID_ARGUMENT, Denial.MALFORMED, text)


async def _abort(method: str, denied: Denied, context: Any) -> None:
    CALLS.labels(method, denied.reason.value).inc()
    await context.abort(denied.status, str(denied), ((REASON_KEY, denied.reason.value),))


async def _describe(served: Served, _: resource_pb2.DescribeRequest) -> bytes:
    return resource_pb2.DescribeResponse(
        address=str(IPv6Address(served.address)),
        type=served.type,  # type: ignore[arg-type]
        node_name=served.node_name,
        asset_name=served.asset_name,
        amount=served.amount,
        expires_ms=served.expires_ms,
        size=served.region.size if served.region else 0,
        attributes=served.attributes(),
    ).SerializeToString()


async def _read(served: Served, request: resource_pb2.ReadRequest) -> bytes:
    region = check_range(served, request.offset, request.length)
    data = await region.read(request.offset, request.length)
    BYTES.labels("read").inc(len(data))
    return pack_read(data)


async def _write(served: Served, request: resource_pb2.WriteRequest) -> bytes:
    region = check_range(served, request.offset, len(request.data))
    await region.write(request.offset, request.data)
    BYTES.labels("write").inc(len(request.data))
    return resource_pb2.WriteResponse(written=len(request.data)).SerializeToString()


def pack_read(data: bytes) -> bytes:
    """The bytes of ReadResponse{data}: field 1, length as a varint, then the data, copied once."""
    if not data:
        return b""
    head, left = bytearray(b"\x0a"), len(data)
    while left > 0x7F:
        head.append(left & 0x7F | 0x80)
        left >>= 7
    head.append(left)
    return b"".join((head, data))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
