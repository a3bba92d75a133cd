"""The gRPC face of the resource service: Describe, Read, Write on [node address]:7443, TLS with the node's certificate.

    call -> authorize (metadata) -> check range -> region -> answer; every refusal is a gRPC status with reason and text

Proxy addresses are translated to this one socket, so the address that a caller means travels in the metadata and is
bound to the token. Read answers are packed by hand: one copy from the region's bytes into the message.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from ipaddress import IPv6Address
from typing import Any, Final

import grpc
import grpc.aio
from prometheus_client import Counter

from hypermesh.v1 import resource_pb2
from hypermesh_agent.identity import TlsIdentity
from hypermesh_agent.serving.authorization import MAX_TRANSFER, REASON_KEY, Denial, Denied, Desk, check_range

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
"""With at most 1 MiB each in flight, what strangers can make this process hold."""

CALLS: Final = Counter("hypermesh_agent_resource_calls_total", "Calls to proxy addresses", ["method", "outcome"])
BYTES: Final = Counter("hypermesh_agent_resource_bytes_total", "Bytes moved at proxy addresses", ["direction"])

Handler = Callable[[Any, Any], Awaitable[Any]]


class ResourceServer:
    """Serves what the desk has open. `start`, then `stop`."""

    def __init__(self, desk: Desk, tls: TlsIdentity, address: str, port: int) -> None:
        self._desk = desk
        self._tls = tls
        self._address = IPv6Address(address)
        self._port = port
        self._server: grpc.aio.Server | None = None

    async def start(self) -> int:
        """Listens and returns the port. Raises OSError when the address cannot be had."""
        server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=_CONCURRENT_CALLS)
        server.add_generic_rpc_handlers((self._handlers(),))
        credentials = grpc.ssl_server_credentials([(self._tls.key_pem, self._tls.chain_pem)])
        try:
            port = server.add_secure_port(f"[{self._address}]:{self._port}", credentials)
        except RuntimeError as error:
            raise OSError(f"[{self._address}]:{self._port} can't be listened on: {error}") from error
        await server.start()
        self._server = server
        return int(port)

    async def stop(self, grace_s: float = 1.0) -> None:
        """No new calls; those under way get the grace."""
        if self._server is not None:
            await self._server.stop(grace_s)
            self._server = None

    def _handlers(self) -> grpc.GenericRpcHandler:
        unary = grpc.unary_unary_rpc_method_handler
        describe, read, write = resource_pb2.DescribeRequest, resource_pb2.ReadRequest, resource_pb2.WriteRequest
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Describe": unary(
                    _answering("Describe", self._describe),
                    describe.FromString,
                    resource_pb2.DescribeResponse.SerializeToString,
                ),
                "Read": unary(_answering("Read", self._read), read.FromString, pack_read),
                "Write": unary(
                    _answering("Write", self._write), write.FromString, resource_pb2.WriteResponse.SerializeToString
                ),
            },
        )

    async def _describe(self, request: resource_pb2.DescribeRequest, context: Any) -> resource_pb2.DescribeResponse:
        served = self._desk.authorize(context.invocation_metadata(), _now_ms())
        return resource_pb2.DescribeResponse(
            address=str(IPv6Address(served.address)),
            type=served.type,  # type: ignore[arg-type]
            node_name=served.node_name,
            asset_name=served.asset_name,
            amount=served.amount,
            expires_ms=served.expires_ms,
            size=served.region.size if served.region else 0,
            attributes=served.attributes(),
        )

    async def _read(self, request: resource_pb2.ReadRequest, context: Any) -> bytes:
        served = self._desk.authorize(context.invocation_metadata(), _now_ms())
        region = check_range(served, request.offset, request.length)
        data = await region.read(request.offset, request.length)
        BYTES.labels("read").inc(len(data))
        return data

    async def _write(self, request: resource_pb2.WriteRequest, context: Any) -> resource_pb2.WriteResponse:
        served = self._desk.authorize(context.invocation_metadata(), _now_ms())
        region = check_range(served, request.offset, len(request.data))
        await region.write(request.offset, request.data)
        BYTES.labels("write").inc(len(request.data))
        return resource_pb2.WriteResponse(written=len(request.data))


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


def _answering(method: str, handler: Handler) -> Handler:
    """Turns a denial, or a failing disk, into the gRPC status that says so."""

    async def answer(request: Any, context: Any) -> Any:
        try:
            response = await handler(request, context)
        except Denied as denied:
            failure = denied
        except OSError as error:
            _log.error("%s failed in its region: %s", method, error)
            text = f"the region's bytes could not be reached: {error.strerror or error}; ask the node's operator"
            failure = Denied(grpc.StatusCode.DATA_LOSS, Denial.FAILED, text)
        else:
            CALLS.labels(method, "ok").inc()
            return response
        CALLS.labels(method, failure.reason.value).inc()
        return await context.abort(failure.status, str(failure), ((REASON_KEY, failure.reason.value),))

    return answer


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
