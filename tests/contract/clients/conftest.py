"""A client of the session's API server, and a namespace of a test's own on it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hypermesh_clients.kube import Kube
from hypermesh_clients.kube_resources import NAMESPACES


@pytest.fixture
async def kube(api_server: Any) -> AsyncIterator[Kube]:
    async with Kube.from_kubeconfig(api_server.kubeconfig) as client:
        yield client


@pytest.fixture
async def namespace(kube: Kube) -> str:
    name = f"clients-{uuid.uuid4().hex[:8]}"
    await kube.create(NAMESPACES, {"metadata": {"name": name}})
    return name
