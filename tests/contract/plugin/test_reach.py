"""How `kubectl hypermesh ledger` finds a ledger, against a real API server and with the real kubectl.

Nothing runs pods here, so every way ends in a sentence. tests/e2e goes all the way.
"""

from __future__ import annotations

import argparse
import uuid
from collections.abc import AsyncIterator
from ipaddress import IPv6Network
from typing import Any

import pytest

from hypermesh import addressing, falcon
from hypermesh_clients.kube import Kube
from hypermesh_clients.kube_resources import CONFIG_MAPS, NAMESPACES, PODS, SERVICE_ACCOUNTS
from hypermesh_clients.trust import CONFIG_MAP, Trust
from kubectl_hypermesh.ledger.naming import asset_of
from kubectl_hypermesh.ledger.reach import Reached, reached
from kubectl_hypermesh.options import CommandError, Options

from ..conftest import BINARIES

LABELS = {"app.kubernetes.io/name": "hypermesh", "app.kubernetes.io/component": "ledger"}


@pytest.fixture
async def kube(api_server: Any) -> AsyncIterator[Kube]:
    async with Kube.from_kubeconfig(api_server.kubeconfig) as client:
        yield client


@pytest.fixture
async def options(kube: Kube, api_server: Any, monkeypatch: pytest.MonkeyPatch) -> Options:
    """Of an installation in a namespace of the test's own."""
    monkeypatch.setenv("PATH", f"{BINARIES}:/usr/bin:/bin")
    name = f"plugin-{uuid.uuid4().hex[:8]}"
    await kube.create(NAMESPACES, {"metadata": {"name": name}})
    await kube.apply(SERVICE_ACCOUNTS, {"metadata": {"namespace": name, "name": "default"}}, field_manager="test")
    return Options(api_server.kubeconfig, None, "default", name, "table")


def arguments(**given: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"ca": None, "ledger": None, "pod": None, **given})


async def publish_trust(kube: Kube, namespace: str) -> None:
    """As TrustChain does."""
    root = falcon.generate().public
    federation = addressing.federation_id(root)
    prefix: IPv6Network = addressing.NetworkPrefix(federation, 1).network
    trust = Trust(root, b"not a certificate", federation, 1, prefix, "uid")
    await kube.create(CONFIG_MAPS, {"metadata": {"namespace": namespace, "name": CONFIG_MAP}, "data": trust.encode()})


async def ledger_pod(kube: Kube, namespace: str, name: str, phase: str) -> None:
    """A pod that nobody runs, in the phase that a kubelet would have written."""
    container = {"name": "ledger", "image": "none", "ports": [{"containerPort": 7450}]}
    body = {
        "metadata": {"namespace": namespace, "name": name, "labels": LABELS},
        "spec": {"containers": [container], "nodeName": "nowhere"},
    }
    await kube.create(PODS, body)
    await kube.merge_patch(PODS, name, {"status": {"phase": phase}}, namespace, subresource="status")


async def fails(options: Options, given: argparse.Namespace) -> str:
    with pytest.raises(CommandError) as error:
        async with reached(options, given):
            pytest.fail("there is no ledger")
    return str(error.value)


async def test_before_the_federation_is_founded_the_message_names_trustchain(options: Options) -> None:
    told = await fails(options, arguments())
    assert CONFIG_MAP in told
    assert "hypermesh-trustchain" in told


async def test_pods_are_found_by_their_labels_and_phase(kube: Kube, options: Options) -> None:
    await publish_trust(kube, options.install_namespace)
    assert "no pod at all" in await fails(options, arguments())
    await ledger_pod(kube, options.install_namespace, "hypermesh-ledger-0", "Pending")
    assert "hypermesh-ledger-0 Pending" in await fails(options, arguments())
    assert "is no running ledger (ledgers: hypermesh-ledger-0)" in await fails(options, arguments(pod="x"))


async def test_what_kubectl_says_is_passed_on(kube: Kube, options: Options) -> None:
    await publish_trust(kube, options.install_namespace)
    await ledger_pod(kube, options.install_namespace, "hypermesh-ledger-0", "Running")
    told = await fails(options, arguments())
    assert told.startswith("kubectl port-forward to pod hypermesh-ledger-0 says: error: ")


async def test_without_kubectl_the_message_offers_another_way(
    kube: Kube, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish_trust(kube, options.install_namespace)
    await ledger_pod(kube, options.install_namespace, "hypermesh-ledger-0", "Running")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "give --ledger HOST:PORT" in await fails(options, arguments())


async def test_names_that_kubernetes_does_not_know(kube: Kube) -> None:
    there = Reached(None, kube, None, None, [])  # type: ignore[arg-type]  # no ledger is asked for a name
    assert await asset_of(there, "ab" * 32) == b"\xab" * 32
    with pytest.raises(CommandError, match="asset nobody does not exist"):
        await asset_of(there, "nobody")
