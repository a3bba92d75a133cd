"""Client of the ledger's gRPC service: submit a signed envelope and wait for its commit, read, and watch.

    envelope bytes -> Submit -> Commit(height, tx_hash) | Refused (lasting) | LedgerUnavailable (try again)

A refusal is the ledger's word and repeats; LedgerUnavailable says nothing about whether the operation was committed.
Submitting the very same envelope again is always safe: the ledger's state, not the client, prevents a second effect.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from hypermesh import falcon
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, ledger_pb2_grpc

CONNECT_MS: Final = 100
"""A ledger that restarts is found again at once; for one that is far away the attempts get longer."""
_CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_send_message_length", 2 << 20),
    ("grpc.enable_http_proxy", 0),  # a ledger is in the cluster or forwarded to this machine, never behind a web proxy
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


def channel_to(
    target: str, ca_pem: bytes, server_name: str | None = None, connect_ms: int = CONNECT_MS
) -> grpc.aio.Channel:
    """target is host:port (an IPv6 address in brackets); server_name replaces the host in the TLS check.

    connect_ms: how long the first attempt to connect may take, and how soon the next one comes.
    """
    options: list[tuple[str, Any]] = [*_CHANNEL_OPTIONS, ("grpc.min_reconnect_backoff_ms", connect_ms)]
    if server_name is not None:
        options.append(("grpc.ssl_target_name_override", server_name))
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(root_certificates=ca_pem), options=options)


_PENDING: Final = "/hypermesh.v1.Ledger/Pending"
PENDING_BYTES: Final = (2 << 20) + 1024
"""Of one message of Pending."""


def pending_envelopes(message: bytes) -> Sequence[bytes]:
    """What one message of Pending tells. Raises ValueError, which says what is told instead."""
    if len(message) > PENDING_BYTES:  # not parsed: empty envelopes would take eight times as much
        raise ValueError(f"{len(message)} bytes at once")
    try:
        told = ledger_pb2.PendingResponse.FromString(message).envelopes
    except DecodeError as error:
        raise ValueError("what is no message") from error
    if len(told) * falcon.SIGNATURE_BYTES > len(message):
        raise ValueError("what is no operation: too short")
    return told


class LedgerUnavailable(Exception):
    """The ledger did not answer; whether the operation was committed is unknown. Submit the same bytes again."""


class NotHeld(Exception):
    """The ledger answers that it does not hold (any more) what was asked for; the message is its own."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Where an operation was committed. tx_hash is 32 bytes: CometBFT's hash of the committed envelope."""

    height: int
    tx_hash: bytes


class LedgerClient:
    """One channel to one ledger. Safe for any number of concurrent calls on one event loop."""

    def __init__(self, target: str, ca_pem: bytes, server_name: str | None = None) -> None:
        """As `channel_to`."""
        self.target = target
        self._channel = channel_to(target, ca_pem, server_name)
        self._stub = ledger_pb2_grpc.LedgerStub(self._channel)  # type: ignore[no-untyped-call]

    async def submit(self, envelope: bytes, timeout: float = 10.0) -> Commit:  # noqa: ASYNC109 - gRPC's own deadline
        """Returns when committed. Raises Refused with the ledger's reason, or LedgerUnavailable."""
        request = ledger_pb2.SubmitRequest(envelope=envelope)
        return self._committed(await self._call(self._stub.Submit, request, timeout))

    async def submit_many(
        self,
        envelopes: Sequence[bytes],
        timeout: float = 30.0,  # noqa: ASYNC109 - gRPC's own deadline
    ) -> AsyncGenerator[tuple[int, Commit | Refused | LedgerUnavailable], None]:
        """One call for many, 1 MiB of them at most: (place, what became of it), in the order in which that is known.

        Raises LedgerUnavailable: of those not told yet nothing is known.
        """
        call = self._stub.SubmitMany(ledger_pb2.SubmitManyRequest(envelopes=envelopes), timeout=timeout)
        try:
            async for some in call:
                for answer in self._message(some).answers:
                    yield answer.index, self._outcome(answer.response)
        except grpc.aio.AioRpcError as error:
            raise self._unavailable(error) from error
        finally:
            call.cancel()

    def _committed(self, response: ledger_pb2.SubmitResponse) -> Commit:
        outcome = self._outcome(response)
        if isinstance(outcome, Commit):
            return outcome
        raise outcome

    def _outcome(self, response: ledger_pb2.SubmitResponse) -> Commit | Refused | LedgerUnavailable:
        if not response.reason:
            return Commit(response.height, response.tx_hash)
        try:
            reason = Reason(response.reason)
        except ValueError:
            text = f"The ledger at {self.target} refuses for {response.reason}, which is unknown here: update."
            return LedgerUnavailable(text)
        if reason is Reason.MempoolFull:
            return LedgerUnavailable(f"{response.message} {reason.remedy}")
        return Refused(reason, response.message)

    async def status(self, timeout: float = 5.0) -> ledger_pb2.StatusResponse:  # noqa: ASYNC109
        """Height, block time, app hash, epoch and genesis. Raises LedgerUnavailable."""
        response: ledger_pb2.StatusResponse = await self._call(self._stub.Status, ledger_pb2.StatusRequest(), timeout)
        return response

    async def peer(self, timeout: float = 5.0, height: int = 0) -> ledger_pb2.PeerResponse:  # noqa: ASYNC109
        """What another ledger needs to join this one. height: of a ledger that is behind, for it to catch up.

        Raises LedgerUnavailable, also for a ledger without peers.
        """
        request = ledger_pb2.PeerRequest(height=height)
        response: ledger_pb2.PeerResponse = await self._call(self._stub.Peer, request, timeout)
        return response

    async def pending(self) -> AsyncGenerator[Sequence[bytes], None]:
        """Envelopes of operations that wait there, then those that come, for ever. Raises LedgerUnavailable."""
        call = self._channel.unary_stream(_PENDING)(b"")
        try:
            async for message in call:
                yield self._told(message)
        except grpc.aio.AioRpcError as error:
            raise self._unavailable(error) from error
        finally:
            call.cancel()
        raise LedgerUnavailable(f"The ledger at {self.target} tells no more.")

    def _told(self, message: bytes) -> Sequence[bytes]:
        try:
            return pending_envelopes(message)
        except ValueError as error:
            raise LedgerUnavailable(f"The ledger at {self.target} tells {error}.") from error

    async def validators(self, timeout: float = 5.0) -> ledger_pb2.ValidatorsResponse:  # noqa: ASYNC109
        """All seats and all evidence; nothing as long as nobody joined. Raises LedgerUnavailable."""
        request = ledger_pb2.ValidatorsRequest()
        response: ledger_pb2.ValidatorsResponse = await self._call(self._stub.Validators, request, timeout)
        return response

    async def inspect(self, timeout: float = 10.0) -> ledger_pb2.InspectResponse:  # noqa: ASYNC109
        """The process that answers, for people. Raises LedgerUnavailable."""
        response: ledger_pb2.InspectResponse = await self._call(
            self._stub.Inspect, ledger_pb2.InspectRequest(), timeout
        )
        return response

    async def transaction(self, tx_hash: bytes, timeout: float = 30.0) -> ledger_pb2.TransactionRecord:  # noqa: ASYNC109
        """A transaction in its block, its outcome known. Raises NotHeld, LedgerUnavailable."""
        request = ledger_pb2.TransactionRequest(tx_hash=tx_hash)
        response: ledger_pb2.TransactionRecord = await self._held(self._stub.Transaction, request, timeout)
        return response

    async def block(self, height: int = 0, timeout: float = 30.0) -> ledger_pb2.BlockResponse:  # noqa: ASYNC109
        """A block with its transactions, 0 for the newest. Raises NotHeld, LedgerUnavailable."""
        request = ledger_pb2.BlockRequest(height=height)
        response: ledger_pb2.BlockResponse = await self._held(self._stub.Block, request, timeout)
        return response

    async def light_block(self, height: int, timeout: float = 5.0) -> ledger_pb2.LightBlockResponse:  # noqa: ASYNC109
        """Header, commit, validators and consensus parameters of a block, not checked here.

        Raises NotHeld with CometBFT's sentence, LedgerUnavailable.
        """
        request = ledger_pb2.LightBlockRequest(height=height)
        response: ledger_pb2.LightBlockResponse = await self._held(self._stub.LightBlock, request, timeout)
        return response

    async def get_allocation(
        self,
        allocation_id: bytes,
        timeout: float = 5.0,  # noqa: ASYNC109
    ) -> ledger_pb2.AllocationRecord | None:
        """The committed record (active or ended), None when the ledger holds none. Raises LedgerUnavailable."""
        request = ledger_pb2.GetAllocationRequest(allocation_id=allocation_id)
        try:
            record: ledger_pb2.AllocationRecord = await self._call(self._stub.GetAllocation, request, timeout)
        except _NotFound:
            return None
        return record

    async def get_proof(
        self,
        key: bytes,
        height: int = 0,
        timeout: float = 10.0,  # noqa: ASYNC109
    ) -> ledger_pb2.GetProofResponse:
        """Proof of a state key's value or absence, not checked here; height 0 for the newest that can be proven.

        Raises LedgerUnavailable, also for a height that the ledger does not keep.
        """
        request = ledger_pb2.GetProofRequest(key=key, height=height)
        response: ledger_pb2.GetProofResponse = await self._call(self._stub.GetProof, request, timeout)
        return response

    async def watch(self, node: bytes = b"") -> AsyncGenerator[ledger_pb2.Changes, None]:
        """The whole state, then `synced`, then each block's changes, for ever. Raises LedgerUnavailable."""
        call = self._stub.Watch(ledger_pb2.WatchRequest(node=node))
        try:
            async for changes in call:
                yield self._message(changes)
        except grpc.aio.AioRpcError as error:
            raise self._unavailable(error) from error
        finally:
            call.cancel()
        raise LedgerUnavailable(f"The ledger at {self.target} ended the watch.")

    async def close(self) -> None:
        """Cancels what is under way."""
        await self._channel.close()

    async def _call(self, method: Any, request: Any, timeout: float) -> Any:  # noqa: ASYNC109
        try:
            return self._message(await method(request, timeout=timeout))
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                raise _NotFound from error
            raise self._unavailable(error) from error

    async def _held(self, method: Any, request: Any, timeout: float) -> Any:  # noqa: ASYNC109
        try:
            return self._message(await method(request, timeout=timeout))
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.OUT_OF_RANGE):
                raise NotHeld(error.details() or "") from error
            raise self._unavailable(error) from error

    def _message(self, answer: Any) -> Any:
        """gRPC makes None of bytes that are no message. Raises LedgerUnavailable."""
        if answer is None:
            raise LedgerUnavailable(f"The ledger at {self.target} tells what is no message.")
        return answer

    def _unavailable(self, error: grpc.aio.AioRpcError) -> LedgerUnavailable:
        return LedgerUnavailable(
            f"The ledger at {self.target} does not answer ({error.code().name}: {error.details()}). "
            "Check the hypermesh-ledger pods and the hypermesh-trust ConfigMap."
        )


class _NotFound(Exception):
    pass
