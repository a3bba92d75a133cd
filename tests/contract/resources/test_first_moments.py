"""The moments after an installation, in which the API server refuses Allocations: `check` ends when they are over."""

from __future__ import annotations

from typing import Any

import pytest

from hypermesh.resources import FINALIZER
from hypermesh_clients.kube import Kube, NotFound
from hypermesh_clients.kube_errors import KubeError
from hypermesh_clients.kube_resources import ALLOCATIONS, NAMESPACES
from kubectl_hypermesh.checks.installation import allocations_taken
from kubectl_hypermesh.checks.model import CheckFailed, Context

from ...api_objects import (
    SYSTEM,
    bound_token,
    install_chart,
    install_resources,
    kubeconfig,
    until_allocations_taken,
)


async def test_once_the_check_passes_allocations_are_taken_with_the_finalizer(own_api_server: Any) -> None:
    async with Kube.from_kubeconfig(own_api_server.kubeconfig) as kube:
        context = Context(kube, SYSTEM)
        await kube.apply(NAMESPACES, {"metadata": {"name": SYSTEM}}, field_manager="test")
        with pytest.raises(NotFound, match="install the CRDs"):
            await allocations_taken(context)
        await install_resources(kube)
        with pytest.raises((CheckFailed, KubeError)):
            await allocations_taken(context)  # no policy yet
        await install_chart(kube, "admission.yaml", "agent/rbac.yaml", "keys.yaml", "operator/rbac.yaml")
        await until_allocations_taken(kube)
        assert await kube.list(ALLOCATIONS, SYSTEM) == []
        body = {
            "metadata": {"name": "first", "namespace": SYSTEM},
            "spec": {"type": "cpu", "resources": {"cores": "1"}},
        }
        assert FINALIZER in (await kube.create(ALLOCATIONS, body))["metadata"]["finalizers"]

        bearer = await bound_token(kube, "hypermesh-operator", "node-1")
        config = kubeconfig(own_api_server.kubeconfig, own_api_server.directory / "poor.kubeconfig", bearer)
        async with Kube.from_kubeconfig(config) as poor:  # may not create Allocations, and the check does not say so
            await allocations_taken(Context(poor, SYSTEM))
