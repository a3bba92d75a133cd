"""A node stays enrolled on its ledger, also on one that loses its volume while the node's word is on its way."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, cast

import pytest

from hypermesh import addressing, certificates, falcon, operations
from hypermesh.refusals import Reason, Refused
from hypermesh.v1 import ledger_pb2, trust_pb2
from hypermesh_agent import membership
from hypermesh_agent.submitting import Submitter
from hypermesh_clients.ledger import Commit
from hypermesh_clients.mirror import Mirror

ROOT, NODE = falcon.generate(), falcon.generate()
CERTIFICATE = certificates.issue(
    ROOT.secret,
    trust_pb2.CertificateBody(
        version=1,
        algorithm=trust_pb2.SIGNATURE_ALGORITHM_FALCON_PADDED_1024,
        subject_key=NODE.public,
        role=trust_pb2.ROLE_NODE,
        subject="node-1",
        federation=addressing.federation_id(ROOT.public),
        cluster=1,
        cluster_uid="uid",
        not_after=1 << 40,
        issuer=ROOT.key_id(),
        serial=secrets.token_bytes(16),
    ),
)


class Ledger(Mirror):
    """A mirror and the ledger it copies in one, whose answers come at moments that a real one can't be held to.

    refusals: why the first submissions are refused, whatever they say; then the chain alone is judged.
    """

    def __init__(self, *refusals: Reason) -> None:
        super().__init__(cast(Any, None))
        self.refusals = list(refusals)
        self.chains: list[str] = []
        self.show("lost")
        self.synced.set()

    def show(self, chain_id: str, *nodes: ledger_pb2.NodeRecord) -> None:
        status = ledger_pb2.StatusResponse(chain_id=chain_id, height=1)
        for change in (ledger_pb2.Change(status=status), *(ledger_pb2.Change(node=node) for node in nodes)):
            self._view.apply(change)
        self._wake()

    async def submit(self, envelope: bytes) -> Commit:
        operation = operations.decode(envelope).operation
        self.chains.append(operation.chain_id)
        if self.refusals:
            self.show("begun")
            raise Refused(self.refusals.pop(0), "refused")
        assert operation.chain_id == self.chain_id
        record = ledger_pb2.NodeRecord(key_id=NODE.key_id(), certificate=operation.enrol_node.certificate)
        self.show(self.chain_id, record)
        return Commit(1, bytes(32))


async def enrolled(ledger: Ledger) -> None:
    keeping = asyncio.create_task(
        membership.keep_enrolled(ledger, Submitter(cast(Any, ledger), ledger, NODE), CERTIFICATE, NODE.key_id())
    )
    seen = asyncio.create_task(ledger.wait_until(lambda: NODE.key_id() in ledger.nodes, 20))
    done, _ = await asyncio.wait({keeping, seen}, return_when=asyncio.FIRST_COMPLETED)
    for task in (keeping, seen):
        task.cancel()
    await asyncio.gather(keeping, seen, return_exceptions=True)
    for task in done:
        task.result()


def test_a_chain_that_is_lost_meanwhile_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "RETRY_S", 0.0)
    ledger = Ledger(Reason.WrongChain)
    asyncio.run(enrolled(ledger))
    assert ledger.chains == ["lost", "begun"]


def test_a_refusal_that_lasts_ends_the_agent() -> None:
    with pytest.raises(Refused) as refused:
        asyncio.run(enrolled(Ledger(Reason.NodeAddressTaken)))
    assert refused.value.reason is Reason.NodeAddressTaken
