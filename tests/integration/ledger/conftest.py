"""One real ledger a test module, with an operator, a node and a CPU asset of 100 millicores."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from hypermesh.proofs.parameters import DEMO
from hypermesh.v1 import proofs_pb2

from ..ledger_fixture import Settled, running_ledger, settle


def patient() -> proofs_pb2.ProofParameters:
    """The demo's proofs with epochs that last as long as a test module on a busy machine."""
    params = proofs_pb2.ProofParameters()
    params.CopyFrom(DEMO)
    params.epoch_ms = 3_600_000
    return params


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def settled(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Settled]:
    async with running_ledger(tmp_path_factory.mktemp("ledger"), patient()) as ledger:
        yield await settle(ledger, 100)
