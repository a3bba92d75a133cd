"""The Kubernetes client against a real API server: every verb, every typed error, pages, tokens, leases."""

from __future__ import annotations

import asyncio
import ssl
import time
import uuid
from dataclasses import replace
from typing import Any

import pytest

from hypermesh_clients.kube import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    Kube,
    NotFound,
    Unavailable,
)
from hypermesh_clients.kube_config import FileToken, NoCredential, StaticToken, from_kubeconfig
from hypermesh_clients.kube_leases import Leadership, LeadershipLost, heartbeat
from hypermesh_clients.kube_resources import (
    CONFIG_MAPS,
    EVENTS,
    LEASES,
    NODES,
    PODS,
    SERVICE_ACCOUNTS,
    Resource,
)

UNKNOWN = Resource("hypermesh.online", "v1alpha1", "unknowns", "Unknown")
"""Of a kind that nobody ever installs; ours another test may have installed in the shared API server."""


def config_map(namespace: str, name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name}, "data": data}


async def test_create_get_delete(kube: Kube, namespace: str) -> None:
    created = await kube.create(CONFIG_MAPS, config_map(namespace, "a", x="1"))
    assert created["metadata"]["uid"]
    assert (await kube.get(CONFIG_MAPS, "a", namespace))["data"] == {"x": "1"}
    with pytest.raises(Conflict):
        await kube.delete(CONFIG_MAPS, "a", namespace, uid=str(uuid.uuid4()))
    await kube.delete(CONFIG_MAPS, "a", namespace, uid=created["metadata"]["uid"])
    await kube.delete(CONFIG_MAPS, "a", namespace)
    with pytest.raises(NotFound):
        await kube.delete(CONFIG_MAPS, "a", namespace, missing_ok=False)


async def test_errors_are_types_that_name_object_and_remedy(kube: Kube, namespace: str) -> None:
    await kube.create(CONFIG_MAPS, config_map(namespace, "a"))
    with pytest.raises(AlreadyExists, match=rf"ConfigMap {namespace}/a: .*already exists\. Use the existing"):
        await kube.create(CONFIG_MAPS, config_map(namespace, "a"))
    with pytest.raises(NotFound, match=rf"ConfigMap {namespace}/nothing: .*Create it first"):
        await kube.get(CONFIG_MAPS, "nothing", namespace)
    with pytest.raises(NotFound, match="install the CRDs"):
        await kube.list(UNKNOWN, namespace)
    with pytest.raises(Invalid, match=r"metadata\.name"):
        await kube.create(CONFIG_MAPS, config_map(namespace, "No_Good"))


async def test_namespaced_resources_need_one_and_cluster_ones_take_none(kube: Kube) -> None:
    with pytest.raises(ValueError, match="needs a namespace"):
        await kube.get(CONFIG_MAPS, "a")
    with pytest.raises(ValueError, match="cluster-scoped"):
        await kube.get(NODES, "a", "default")


async def test_list_pages_through_a_snapshot(kube: Kube, namespace: str) -> None:
    names = [f"item-{number:03d}" for number in range(25)]
    await asyncio.gather(*(kube.create(CONFIG_MAPS, config_map(namespace, name)) for name in names))
    sizes = [len(page["items"]) async for page in kube.pages(CONFIG_MAPS, namespace, page_size=10)]
    assert sizes == [10, 10, 5]
    listed = await kube.list(CONFIG_MAPS, namespace, page_size=7)
    assert [item["metadata"]["name"] for item in listed] == names
    chosen = await kube.list(CONFIG_MAPS, namespace, field_selector="metadata.name=item-007")
    assert [item["metadata"]["name"] for item in chosen] == ["item-007"]


async def test_metadata_is_listed_alone(kube: Kube, namespace: str) -> None:
    for name in ("a", "b", "c"):
        await kube.create(CONFIG_MAPS, config_map(namespace, name, x="1"))
    pages = [page async for page in kube.pages(CONFIG_MAPS, namespace, page_size=2, metadata_only=True)]
    items = [item for page in pages for item in page["items"]]
    assert [item["metadata"]["name"] for item in items] == ["a", "b", "c"]
    assert all(item["metadata"]["uid"] and "data" not in item for item in items)


async def test_list_survives_a_snapshot_compacted_between_two_pages(own_api_server: Any) -> None:
    async with Kube.from_kubeconfig(own_api_server.kubeconfig) as kube:
        names = {f"item-{number:02d}" for number in range(6)}
        for name in names:
            await kube.create(CONFIG_MAPS, config_map("default", name))
        seen: list[int] = []
        honest = kube.request

        async def compacting(*arguments: Any, **options: Any) -> Any:
            answer = await honest(*arguments, **options)
            seen.append(len(answer["items"]))
            if len(seen) == 1:
                async with Kube.from_kubeconfig(own_api_server.kubeconfig) as other:
                    await other.create(CONFIG_MAPS, config_map("default", "later"))
                own_api_server.kill()  # its watch cache would still serve the old snapshot
                own_api_server.compact()
                own_api_server.start()
            return answer

        kube.request = compacting  # type: ignore[method-assign]
        listed = {item["metadata"]["name"] for item in await kube.list(CONFIG_MAPS, "default", page_size=2)}
        assert names | {"later"} <= listed
        assert len(seen) > 4, "the list was not begun again"


async def test_apply_owns_its_fields_and_removes_what_it_no_longer_wishes(kube: Kube, namespace: str) -> None:
    await kube.apply(CONFIG_MAPS, config_map(namespace, "a", mine="1", gone="1"), field_manager="one")
    await kube.apply(CONFIG_MAPS, config_map(namespace, "a", theirs="2"), field_manager="two")
    await kube.apply(CONFIG_MAPS, config_map(namespace, "a", mine="2"), field_manager="one")
    assert (await kube.get(CONFIG_MAPS, "a", namespace))["data"] == {"mine": "2", "theirs": "2"}
    with pytest.raises(Conflict, match="theirs"):
        await kube.apply(CONFIG_MAPS, config_map(namespace, "a", theirs="3"), field_manager="one", force=False)


async def test_merge_patch_with_a_resource_version_loses_against_a_newer_one(kube: Kube, namespace: str) -> None:
    old = await kube.create(CONFIG_MAPS, config_map(namespace, "a", x="1"))
    await kube.merge_patch(CONFIG_MAPS, "a", {"data": {"x": "2", "y": "1"}}, namespace)
    patch = {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}, "data": {"x": "3"}}
    with pytest.raises(Conflict):
        await kube.merge_patch(CONFIG_MAPS, "a", patch, namespace)
    assert (await kube.get(CONFIG_MAPS, "a", namespace))["data"] == {"x": "2", "y": "1"}


async def test_status_subresource(kube: Kube) -> None:
    name = f"node-{uuid.uuid4().hex[:8]}"
    await kube.create(NODES, {"metadata": {"name": name}})
    condition = {"type": "Tested", "status": "True", "reason": "Tested", "message": "by the contract test"}
    body = {"metadata": {"name": name}, "status": {"conditions": [condition]}}
    await kube.apply(NODES, body, field_manager="contract", subresource="status")
    read = await kube.get(NODES, name)
    assert [c["type"] for c in read["status"]["conditions"]] == ["Tested"]


async def test_event_is_attached_to_its_object(kube: Kube, namespace: str) -> None:
    regarding = await kube.create(CONFIG_MAPS, config_map(namespace, "a"))
    await kube.event(
        CONFIG_MAPS,
        regarding,
        reason="Tested",
        note="n" * 5000,
        action="Test",
        controller="hypermesh.online/test",
        instance="test-0",
        warning=True,
    )
    (event,) = await kube.list(EVENTS, namespace)
    assert event["regarding"]["uid"] == regarding["metadata"]["uid"]
    assert event["type"] == "Warning"
    assert len(event["note"]) == 1000


async def test_without_rights_it_is_forbidden_and_says_who(api_server: Any, kube: Kube, namespace: str) -> None:
    await kube.create(SERVICE_ACCOUNTS, {"metadata": {"name": "poor", "namespace": namespace}})
    answer = await kube.create(
        SERVICE_ACCOUNTS,
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
        namespace,
        name="poor",
        subresource="token",
    )
    connection = from_kubeconfig(api_server.kubeconfig)
    tls = ssl.create_default_context(cafile=str(api_server.authority))
    poor = replace(connection, tls=tls, credential=StaticToken(answer["status"]["token"]))
    async with Kube(poor) as client:
        with pytest.raises(Forbidden, match=rf"system:serviceaccount:{namespace}:poor"):
            await client.get(CONFIG_MAPS, "a", namespace)
    async with Kube(replace(poor, credential=NoCredential())) as client:
        with pytest.raises(Forbidden, match="system:anonymous"):
            await client.get(CONFIG_MAPS, "a", namespace)


async def test_a_rotated_token_is_read_again(api_server: Any, kube: Kube, namespace: str, tmp_path: Any) -> None:
    await kube.create(SERVICE_ACCOUNTS, {"metadata": {"name": "rotating", "namespace": namespace}})
    answer = await kube.create(
        SERVICE_ACCOUNTS,
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}},
        namespace,
        name="rotating",
        subresource="token",
    )
    file = tmp_path / "token"
    file.write_text("outdated")
    connection = from_kubeconfig(api_server.kubeconfig)
    tls = ssl.create_default_context(cafile=str(api_server.authority))
    credential = FileToken(file, max_age=3600)
    assert await credential.token() == "outdated"
    file.write_text(answer["status"]["token"] + "\n")
    async with Kube(replace(connection, tls=tls, credential=credential)) as client:
        with pytest.raises(Forbidden, match=f"{namespace}:rotating"):  # known again, though without rights
            await client.get(CONFIG_MAPS, "a", namespace)


async def test_token_review_knows_pod_and_node(kube: Kube, namespace: str) -> None:
    node = f"node-{uuid.uuid4().hex[:8]}"
    await kube.create(NODES, {"metadata": {"name": node}})
    await kube.create(SERVICE_ACCOUNTS, {"metadata": {"name": "agent", "namespace": namespace}})
    pod = await kube.create(
        PODS,
        {
            "metadata": {"name": "agent-0", "namespace": namespace},
            "spec": {
                "serviceAccountName": "agent",
                "nodeName": node,
                "containers": [{"name": "agent", "image": "agent"}],
                "automountServiceAccountToken": False,
            },
        },
    )
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "agent-0", "uid": pod["metadata"]["uid"]}
    answer = await kube.create(
        SERVICE_ACCOUNTS,
        {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": ["somebody"], "expirationSeconds": 600, "boundObjectRef": bound},
        },
        namespace,
        name="agent",
        subresource="token",
    )
    token = answer["status"]["token"]
    review = await kube.token_review(token, ("somebody",))
    assert review.authenticated
    assert review.username == f"system:serviceaccount:{namespace}:agent"
    assert review.extra["authentication.kubernetes.io/node-name"] == (node,)
    assert review.extra["authentication.kubernetes.io/pod-name"] == ("agent-0",)
    other = await kube.token_review(token, ("somebody-else",))
    assert not other.authenticated
    assert not (await kube.token_review("nonsense", ("somebody",))).authenticated


async def test_heartbeat_renews(kube: Kube, namespace: str) -> None:
    for _ in range(2):
        await heartbeat(kube, namespace, "n1", holder="n1", duration=15, field_manager="hypermesh-agent")
    lease = await kube.get(LEASES, "n1", namespace)
    assert lease["spec"]["holderIdentity"] == "n1"
    first = lease["spec"]["renewTime"]
    await heartbeat(kube, namespace, "n1", holder="n1", duration=15, field_manager="hypermesh-agent")
    assert (await kube.get(LEASES, "n1", namespace))["spec"]["renewTime"] > first


async def test_one_leader_at_a_time_and_a_released_lease_is_taken_at_once(kube: Kube, namespace: str) -> None:
    first = Leadership(kube, namespace, "lead", "first", duration=60, renew_every=0.2)
    second = Leadership(kube, namespace, "lead", "second", duration=60, renew_every=0.2)
    await asyncio.wait_for(first.acquire(), 10)
    holding = asyncio.create_task(first.hold())
    waiting = asyncio.create_task(second.acquire())
    done, _ = await asyncio.wait({waiting}, timeout=1.5)
    assert not done, "two leaders"
    assert first.check() is None
    assert "another replica" in (second.check() or "")
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    await asyncio.wait_for(waiting, 10)
    assert (await kube.get(LEASES, "lead", namespace))["spec"]["holderIdentity"] == "second"
    assert second.check() is None


async def test_a_leader_whose_lease_was_taken_learns_it(kube: Kube, namespace: str) -> None:
    leader = Leadership(kube, namespace, "lead", "first", duration=60, renew_every=0.1)
    await leader.acquire()
    holding = asyncio.create_task(leader.hold())
    await kube.merge_patch(LEASES, "lead", {"spec": {"holderIdentity": "thief"}}, namespace)
    with pytest.raises(LeadershipLost):
        await asyncio.wait_for(holding, 10)


async def test_a_lease_left_by_a_dead_leader_is_taken_after_its_duration(kube: Kube, namespace: str) -> None:
    dead = Leadership(kube, namespace, "lead", "dead", duration=2, renew_every=0.5)
    await dead.acquire()
    started = time.monotonic()
    heir = Leadership(kube, namespace, "lead", "heir", duration=2, renew_every=0.2)
    await asyncio.wait_for(heir.acquire(), 20)
    assert time.monotonic() - started >= 2


async def test_a_server_that_is_away_is_unavailable_and_waited_for(own_api_server: Any) -> None:
    async with Kube.from_kubeconfig(own_api_server.kubeconfig, patience=60.0) as kube:
        await kube.create(CONFIG_MAPS, config_map("default", "kept", x="1"))
        own_api_server.kill()
        async with Kube.from_kubeconfig(own_api_server.kubeconfig, patience=0.3) as hasty:
            with pytest.raises(Unavailable, match="no answer from the API server"):
                await hasty.get(CONFIG_MAPS, "kept", "default")
            with pytest.raises(Unavailable):
                await hasty.create(CONFIG_MAPS, config_map("default", "new"))
        reading = asyncio.create_task(kube.get(CONFIG_MAPS, "kept", "default"))
        applying = asyncio.create_task(
            kube.apply(CONFIG_MAPS, config_map("default", "applied"), field_manager="contract")
        )
        await asyncio.to_thread(own_api_server.start)
        assert (await asyncio.wait_for(reading, 60))["data"] == {"x": "1"}
        assert (await asyncio.wait_for(applying, 60))["metadata"]["name"] == "applied"
