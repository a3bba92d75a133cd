"""What the modules of a mesh share: each has a mesh of its own under the name `mesh`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

sys.path.append(str(Path(__file__).parent))  # last: it shadows nothing

from agent_mesh import NAMESPACE, Mesh

from hypermesh_clients.kube import Kube
from hypermesh_clients.ledger import LedgerClient
from hypermesh_clients.mirror import Mirror
from hypermesh_clients.trust import read_trust


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kube(mesh: Mesh) -> AsyncIterator[Kube]:
    async with mesh.kube() as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mirror(mesh: Mesh, kube: Kube) -> AsyncIterator[Mirror]:
    """The ledger as anybody else sees it."""
    trust = await read_trust(kube, NAMESPACE)
    client = LedgerClient("[::1]:7450", trust.ca_pem, server_name=f"hypermesh-ledger.{NAMESPACE}.svc")
    mirror = Mirror(client)
    following = asyncio.create_task(mirror.run())
    await asyncio.wait_for(mirror.synced.wait(), 20)
    yield mirror
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await client.close()
