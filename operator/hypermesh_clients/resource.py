"""Client of a proxy address: describe the hardware behind it, read and write its bytes.

    address + token + TLS root -> TLS to the address, the node's name derived from it -> calls of at most 1 MiB each

Longer reads and writes are cut into calls, several under way at once. Reads and writes at an offset can be repeated,
so a call that the node did not answer is tried again for a few seconds (its agent may be restarting).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv6Address
from typing import Any, Final, Self

import grpc
import grpc.aio

from hypermesh import addressing
from hypermesh.resources import RESOURCE_PORT
from hypermesh.v1 import resource_pb2, resource_pb2_grpc

CHUNK: Final = 1 << 20
_AT_ONCE: Final = 4
_PAUSE_S: Final = 0.2
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", CHUNK + (64 << 10)),
    ("grpc.max_send_message_length", CHUNK + (64 << 10)),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
_REMEDIES: Final = {
    "AddressMissing": "give the proxy address of the Allocation (status.proxyAddress)",
    "AddressForeign": "use the address in the Allocation's status.proxyAddress",
    "NoSuchMapping": "wait for it: kubectl wait --for=condition=Ready allocation/NAME",
    "AddressOpening": "try again in a moment; if it stays, look at the conditions of the ProxyMapping",
    "TokenMissing": "give the token of the Allocation's access Secret",
    "TokenWrong": "read address and token from the same access Secret",
    "LeaseEnded": "create a new Allocation, with a longer leaseDuration if it ended too early",
    "NotAddressable": "read and write work on memory and storage; CPU and GPU are held for you on the node",
    "OutOfRange": "stay below the size that describe shows",
    "TooLarge": "move at most 1 MiB in one call",
    "TooManyCalls": "make fewer calls at once to one address",
    "RequestLate": "look at the network between here and the node",
    "Malformed": "use a client of this version",
    "RegionFailed": "look at the log of the hypermesh-agent of that node",
}
_UNREACHABLE: Final = (
    "run where the federation's addresses are routed (a Pod or a node of the cluster), and check "
    "`kubectl hypermesh proxy resolve ADDRESS`"
)
_RETRIED: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""


class ResourceError(Exception):
    """The address did not do it. reason: the node's CamelCase word, or Unreachable; the text ends with the remedy."""

    def __init__(self, address: IPv6Address, reason: str, message: str, remedy: str) -> None:
        super().__init__(f"{address}: {message}. {reason}: {remedy}.")
        self.reason = reason
        self.message = message
        self.remedy = remedy


class ResourceClient:
    """`async with ResourceClient(address, token, ca) as client`. ca: PEM of the federation's TLS root.

    timeout: seconds for one call; patience: seconds during which a call without answer is tried again.
    """

    def __init__(
        self,
        address: str,
        token: str,
        ca: bytes,
        *,
        port: int = RESOURCE_PORT,
        timeout: float = 30.0,
        patience: float = 5.0,
    ) -> None:
        self.address = addressing.parse(address).address
        self._metadata = (("authorization", f"Bearer {token}"), ("hypermesh-address", str(self.address)))
        self._timeout = timeout
        self._patience = patience
        self._channel = grpc.aio.secure_channel(
            f"ipv6:[{self.address}]:{port}",
            grpc.ssl_channel_credentials(root_certificates=ca),
            options=[*_OPTIONS, ("grpc.ssl_target_name_override", addressing.tls_name(self.address))],
        )
        self._stub = resource_pb2_grpc.ResourceStub(self._channel)  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection."""
        await self._channel.close()

    async def describe(self) -> resource_pb2.DescribeResponse:
        """What is behind the address: type, amount, size in bytes, end of the lease. Raises ResourceError."""
        answer: resource_pb2.DescribeResponse = await self._call(self._stub.Describe, resource_pb2.DescribeRequest())
        return answer

    async def read(self, offset: int, length: int, progress: Progress | None = None) -> bytes:
        """`length` bytes from `offset`. Raises ResourceError."""
        parts: list[bytes] = []
        done = 0
        async for part in self.read_chunks(offset, length):
            parts.append(part)
            done += len(part)
            if progress:
                progress(done, length)
        return b"".join(parts)

    async def read_chunks(self, offset: int, length: int) -> AsyncIterator[bytes]:
        """The same bytes in order, in pieces of at most 1 MiB, some of them fetched ahead. Raises ResourceError."""
        ahead: deque[asyncio.Task[Any]] = deque()
        starts = iter(range(offset, offset + length, CHUNK))
        try:
            while True:
                while len(ahead) < _AT_ONCE and (start := next(starts, None)) is not None:
                    request = resource_pb2.ReadRequest(offset=start, length=min(CHUNK, offset + length - start))
                    ahead.append(asyncio.create_task(self._call(self._stub.Read, request)))
                if not ahead:
                    return
                yield (await ahead.popleft()).data
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    async def write(self, offset: int, data: bytes | memoryview, progress: Progress | None = None) -> None:
        """All of `data` at `offset`; after an error any part of it may be there. Raises ResourceError."""
        view = memoryview(data)
        done = 0
        slots = asyncio.Semaphore(_AT_ONCE)

        async def put(start: int) -> None:
            nonlocal done
            async with slots:
                piece = bytes(view[start : start + CHUNK])
                await self._call(self._stub.Write, resource_pb2.WriteRequest(offset=offset + start, data=piece))
            done += len(piece)
            if progress:
                progress(done, len(view))

        try:
            async with asyncio.TaskGroup() as group:
                for start in range(0, len(view), CHUNK):
                    group.create_task(put(start))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _call(self, method: Any, request: Any) -> Any:
        until = time.monotonic() + self._patience
        while True:
            try:
                return await method(request, metadata=self._metadata, timeout=self._timeout)
            except grpc.aio.AioRpcError as error:
                reason = dict(error.trailing_metadata() or ()).get("hypermesh-reason", "")
                if error.code() not in _RETRIED or time.monotonic() > until:
                    raise self._error(error, str(reason)) from error
            await asyncio.sleep(_PAUSE_S)

    def _error(self, error: grpc.aio.AioRpcError, reason: str) -> ResourceError:
        said = (error.details() or error.code().name).rstrip(".")
        if reason:
            return ResourceError(self.address, reason, said, _REMEDIES.get(reason, "see the text before"))
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            said = f"no answer within {self._timeout:g} s"
        return ResourceError(self.address, "Unreachable", said, _UNREACHABLE)
