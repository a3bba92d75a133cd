"""Who the operator is: its Falcon key in a Secret, its certificate from TrustChain, its enrolment on the ledger.

    Secret hypermesh-operator-key (made once, shared by all replicas) -> TrustChain certificate -> EnrolNode

TrustChain is needed only when the ledger does not hold a certificate of ours that lasts: an operator restarts without
it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hypermesh import falcon, operations
from hypermesh.refusals import Refused
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_clients.key_encryption import Wrapping, fill_wrapped
from hypermesh_clients.kube import Kube
from hypermesh_clients.ledger import LedgerClient, LedgerUnavailable
from hypermesh_clients.mirror import Mirror
from hypermesh_operator.signing import Keys

_log = logging.getLogger(__name__)

SECRET: Final = "hypermesh-operator-key"  # noqa: S105 - the object's name
FALCON_KEY: Final = "falcon.key"
TOKEN_KEY: Final = "token.key"  # noqa: S105 - a name too
RENEW_AFTER: Final = 2 / 3
LOOK_EVERY_S: Final = 60.0
MAX_PAUSE_S: Final = 10.0


async def load(kube: Kube, namespace: str) -> Keys:
    """The keys of this cluster's operator, made at the first start.

    Raises KubeError, KeyEncryptionUnusable, falcon.KeyInvalid.
    """

    def make() -> dict[str, bytes]:
        return {FALCON_KEY: falcon.generate().encode(), TOKEN_KEY: os.urandom(32)}

    wrapping = Wrapping.of(SECRET, (FALCON_KEY, TOKEN_KEY), os.environ)
    data = await fill_wrapped(kube, namespace, wrapping, FALCON_KEY, make)
    return Keys(falcon.KeyPair.decode(data[FALCON_KEY]), data[TOKEN_KEY])


@dataclass(frozen=True, slots=True)
class Place:
    """Where TrustChain is and what convinces it."""

    trustchain: str
    ca_pem: bytes
    root_public: bytes
    token_file: Path


class Enrolled:
    """Keeps the operator's certificate enrolled. `ensure` once, then `run` beside the work."""

    def __init__(self, place: Place, keys: Keys, client: LedgerClient, mirror: Mirror) -> None:
        self._place = place
        self._keys = keys
        self._client = client
        self._mirror = mirror
        self._doubted = False

    def check(self) -> str | None:
        """Readiness: whether the ledger knows our key by a certificate that has not ended."""
        body = self._certified()
        if body is None:
            return "the ledger does not hold this operator's certificate yet"
        if time.time() >= body.not_after:
            return "this operator's certificate ended and is not renewed; the log says why"
        return None

    def doubt(self) -> None:
        """The ledger refused our key: enrol again soon."""
        self._doubted = True

    async def ensure(self) -> None:
        """Returns when the ledger holds a certificate of ours that lasts; tries for as long as it takes."""
        pause = 0.2
        while not self._lasts():
            try:
                await self._enrol()
            except Exception as error:  # noqa: BLE001 - whatever it is, without enrolment nothing else can be done
                _log.warning("not enrolled yet: %s; again in %.1f s", error, pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, MAX_PAUSE_S)

    async def run(self) -> None:
        """Renews for ever, and at once where the ledger does not know us any more."""
        while True:
            with contextlib.suppress(TimeoutError):
                await self._mirror.wait_until(lambda: self._doubted or self._certified() is None, LOOK_EVERY_S)
            try:
                if self._doubted:
                    self._doubted = False
                    await self._enrol()
                await self.ensure()
            except Exception as error:  # noqa: BLE001 - told, and tried again at the next doubt or look
                _log.warning("enrolling again failed: %s", error)
                await asyncio.sleep(MAX_PAUSE_S)

    def _lasts(self) -> bool:
        """Whether renewing can wait."""
        body = self._certified()
        return body is not None and time.time() < body.not_before + RENEW_AFTER * (body.not_after - body.not_before)

    def _certified(self) -> trust_pb2.CertificateBody | None:
        """What the ledger's record says of our key."""
        record = self._mirror.nodes.get(self._keys.key_id)
        return None if record is None else trust_pb2.CertificateBody.FromString(record.certificate.body)

    async def _enrol(self) -> None:
        from hypermesh_clients import enrolment  # its X.509 machinery is needed for a second in months

        keypair, place = self._keys.keypair, self._place
        enrolled = await enrolment.enrol(
            place.trustchain, place.ca_pem, keypair, place.token_file, root_public=place.root_public
        )
        now = max(int(time.time() * 1000), self._mirror.block_time_ms)
        operation = ledger_pb2.Operation(chain_id=self._mirror.chain_id, valid_until_ms=now + 60_000)
        operation.enrol_node.certificate.CopyFrom(enrolled.certificate)
        try:
            commit = await self._client.submit(operations.build(operation, keypair.public, keypair.secret))
        except (Refused, LedgerUnavailable) as error:
            raise RuntimeError(f"the ledger does not enrol this operator: {error}") from error
        _log.info("enrolled on the ledger in block %d", commit.height)
        key = self._keys.key_id
        await self._mirror.wait_until(lambda: key in self._mirror.nodes, 10.0)
