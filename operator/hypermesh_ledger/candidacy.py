"""A ledger with peers asks for its seat among the validators, until it has it.

caught up? -> seat's record -> EnrolNode (once for each certificate) -> JoinValidator, again while it waits
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hypermesh import falcon, operations
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_clients.files import write_durably
from hypermesh_ledger import keys
from hypermesh_ledger.core import Core
from hypermesh_ledger.errors import Undecided
from hypermesh_ledger.execution.context import read
from hypermesh_ledger.execution.validators import CANDIDACY_MS, possession, seat_of
from hypermesh_ledger.federation import Identity
from hypermesh_ledger.validator_key import signer

_log = logging.getLogger(__name__)

LOOK_S: Final = 2.0
RENEW_MS: Final = CANDIDACY_MS // 3
PATIENCE_S: Final = 30.0
VALIDITY_MS: Final = 60_000


class Candidacy:
    """One ledger's. identity: asked at each turn, since certificates are renewed."""

    def __init__(self, core: Core, identity: Callable[[], Identity], key_file: Path) -> None:
        """Raises HomeMismatch for a key file without a seed."""
        self._core = core
        self._identity = identity
        self._consensus_key, self._private = signer(key_file)
        self._told: str = ""

    async def run(self, behind: Callable[[], bool]) -> None:
        """For ever; asks nothing while `behind`, since then the state read here is old."""
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._core.store.head.height or behind():
                continue
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._turn(self._identity())
            except Refused as refusal:
                self._tell(str(refusal))
            except (TimeoutError, Undecided):
                self._tell("no block took our operation yet")

    async def _turn(self, identity: Identity) -> None:
        state, key_id = self._core.store.snapshot, identity.keypair.key_id()
        body = trust_pb2.CertificateBody.FromString(identity.certificate.body)
        record = read(state, keys.validator(seat_of(body)), ledger_pb2.ValidatorRecord)
        if record is not None and not self._due(record, key_id):
            return
        enrolled = read(state, keys.node(key_id), ledger_pb2.NodeRecord)
        if enrolled is None or enrolled.certificate != identity.certificate:
            await self._submit(identity, enrol_node=ledger_pb2.EnrolNode(certificate=identity.certificate))
        shown = self._private.sign(possession(self._chain_id, key_id))
        joining = ledger_pb2.JoinValidator(consensus_key=self._consensus_key, possession=shown, extends_votes=True)
        await self._submit(identity, join_validator=joining)
        self._tell("asked for a seat among the validators")

    def _due(self, record: ledger_pb2.ValidatorRecord, key_id: bytes) -> bool:
        if (record.holder, record.consensus_key) != (key_id, self._consensus_key):
            return True
        if record.state == ledger_pb2.VALIDATOR_STATE_WAITING:
            return self._core.store.head.time_ms - record.time_ms >= RENEW_MS
        if record.state == ledger_pb2.VALIDATOR_STATE_ACTIVE:
            self._tell(f"validator since height {record.joined_height}")
            return not record.extends_votes
        return record.state in (ledger_pb2.VALIDATOR_STATE_LEFT, ledger_pb2.VALIDATOR_STATE_ABSENT)

    @property
    def _chain_id(self) -> str:
        return (self._core.store.snapshot.get(keys.CHAIN_ID) or b"").decode()

    async def _submit(self, identity: Identity, **kind: object) -> None:
        until = max(self._core.store.head.time_ms, time.time_ns() // 1_000_000) + VALIDITY_MS
        operation = ledger_pb2.Operation(chain_id=self._chain_id, valid_until_ms=until, **kind)  # type: ignore[arg-type]
        pair = identity.keypair
        tx = await asyncio.to_thread(operations.build, operation, pair.public, pair.secret)
        result = await self._core.admission.submit(tx)
        if result.reason is not None:
            raise Refused(Reason(result.reason), result.message)

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._told = text
            _log.info("validators: %s", text)


def falcon_key(path: Path) -> falcon.KeyPair:
    """The ledger's own FALCON key, made at the first start and kept: its trust score and its seat hang on it.

    Rests beside CometBFT's key, protected by the file's mode like that one. Raises OSError, falcon.KeyInvalid.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, falcon.generate().encode(), 0o600)
    return falcon.KeyPair.decode(path.read_bytes())
