"""One real ledger a test module, with an operator, a node and a CPU asset of 100 millicores; four validators a run."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ..ledger_fixture import Settled, patient, running_ledger, settle
from .grown import Grown, grown_to_four, tenants_of


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def settled(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Settled]:
    async with running_ledger(tmp_path_factory.mktemp("ledger"), patient()) as ledger:
        yield await settle(ledger, 100)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def grown(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Grown]:
    """Only in a network namespace of its own (test_validators.py)."""
    async with grown_to_four(tmp_path_factory.mktemp("four")) as world:
        yield world


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def tenants(grown: Grown) -> AsyncIterator[Settled]:
    """Who allocates on the four."""
    async with tenants_of(grown) as settled:
        yield settled
