"""One real ledger a test module, with an operator, a node and a CPU asset of 100 millicores."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ..ledger_fixture import Settled, patient, running_ledger, settle


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def settled(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Settled]:
    async with running_ledger(tmp_path_factory.mktemp("ledger"), patient()) as ledger:
        yield await settle(ledger, 100)
