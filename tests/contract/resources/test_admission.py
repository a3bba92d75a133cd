"""Who may write what: the chart's policies against real tokens, bound to nodes as kubelet binds them.

RBAC of agent and operator is the chart's too, so that every refusal here is the policy's and every success is allowed
by both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from hypermesh_agent.heartbeat import lease_name
from hypermesh_clients.kube import Conflict, Forbidden, Invalid, Kube, KubeError, Object
from hypermesh_clients.kube_leases import heartbeat
from hypermesh_clients.kube_resources import ALLOCATIONS, ASSETS, LEASES, PROXY_MAPPINGS, SECRETS

from ...api_objects import SYSTEM, bound_token, kubeconfig, token
from ...integration.operator_fixture import TENANT
from ...integration.reports import report_programmed
from .conftest import Served

REFUSED = (Forbidden, Invalid)
HEX = "6a" * 32


class Accounts:
    """API clients by who they are."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._open: list[Kube] = []
        self.admin = self._keep(served.kube())

    def _keep(self, kube: Kube) -> Kube:
        self._open.append(kube)
        return kube

    async def agent(self, node: str) -> Kube:
        return self._of(await bound_token(self.admin, "hypermesh-agent", node), f"agent-{node}")

    async def unbound_agent(self) -> Kube:
        return self._of(await token(self.admin, "hypermesh-agent"), "agent")

    async def operator(self) -> Kube:
        return self._of(await bound_token(self.admin, "hypermesh-operator", "node-1"), "operator")

    def _of(self, bearer: str, name: str) -> Kube:
        return self._keep(
            Kube.from_kubeconfig(
                kubeconfig(self._served.api.kubeconfig, self._served.directory / f"{name}.kubeconfig", bearer)
            )
        )

    async def close(self) -> None:
        for kube in self._open:
            await kube.close()


@pytest.fixture
async def accounts(guarded: Served) -> AsyncIterator[Accounts]:
    found = Accounts(guarded)
    yield found
    await found.close()


def asset(node: str, number: str = "0011aabb", **sharing: Any) -> Object:
    spec = {"type": "memory", "nodeName": node, "hardwareID": "mem-0", **({"sharing": sharing} if sharing else {})}
    return {"metadata": {"name": f"{node}-memory-{number}"}, "spec": spec}


def mapping(name: str, node: str) -> Object:
    return {
        "metadata": {"name": name, "namespace": TENANT, "labels": {"hypermesh.online/node": node}},
        "spec": {
            "address": "fd12:3456:789a:1::1",
            "port": 7443,
            "protocol": "TCP",
            "allocationName": name,
            "allocationID": HEX,
            "assetName": f"{node}-memory-0011aabb",
            "nodeName": node,
            "leaseExpirationTime": "2027-01-01T00:00:00Z",
            "ledgerHeight": 42,
            "transactionHash": HEX,
        },
    }


async def refusal(writing: Any) -> str:
    """The message of the refusal."""
    with pytest.raises(REFUSED) as caught:
        await writing
    assert not isinstance(caught.value, Conflict)
    return str(caught.value)


async def apply(kube: Kube, resource: Any, body: Object, manager: str, **more: Any) -> KubeError | None:
    await kube.apply(resource, body, field_manager=manager, **more)
    return None


async def test_agent_writes_assets_of_its_node_only(accounts: Accounts) -> None:
    agent = await accounts.agent("node-1")
    await apply(agent, ASSETS, asset("node-1"), "hypermesh-agent")
    status = {**asset("node-1"), "status": {"trustScore": 50}}
    await apply(
        agent, ASSETS, {key: status[key] for key in ("metadata", "status")}, "hypermesh-agent", subresource="status"
    )
    text = await refusal(apply(agent, ASSETS, asset("node-2"), "hypermesh-agent"))
    assert "belongs to node node-2, but this agent speaks for node node-1" in text


async def test_agent_cannot_touch_another_nodes_asset(accounts: Accounts) -> None:
    other = await accounts.agent("node-3")
    await apply(other, ASSETS, asset("node-3"), "hypermesh-agent")
    agent = await accounts.agent("node-1")
    name = asset("node-3")["metadata"]["name"]
    stolen = {"metadata": {"name": name}, "status": {"trustScore": 100}}
    text = await refusal(apply(agent, ASSETS, stolen, "hypermesh-agent", subresource="status"))
    assert "an agent writes the Assets of its own node only" in text
    assert "belongs to node node-3" in await refusal(agent.delete(ASSETS, name))


async def test_token_bound_to_no_node_writes_nothing(accounts: Accounts) -> None:
    agent = await accounts.unbound_agent()
    text = await refusal(apply(agent, ASSETS, asset("node-4"), "hypermesh-agent"))
    assert "this agent's token is bound to no node" in text


async def test_an_agent_beats_for_its_own_node_only(accounts: Accounts) -> None:
    agent = await accounts.agent("node-7")
    for _ in range(2):  # creates, then renews
        await beat(agent, lease_name("node-7"))
    text = await refusal(beat(agent, lease_name("node-8")))
    assert "is not the heartbeat of node node-7, for which this agent speaks" in text
    unbound = await accounts.unbound_agent()
    assert "token is bound to none" in await refusal(beat(unbound, lease_name("node-7")))


async def test_no_agent_takes_the_operators_leadership(accounts: Accounts) -> None:
    agent = await accounts.agent("node-7")
    assert "an agent writes Lease hypermesh-agent-<its node> only" in await refusal(beat(agent, "hypermesh-operator"))
    await beat(accounts.admin, "hypermesh-operator")
    await refusal(beat(agent, "hypermesh-operator"))
    stolen = {"spec": {"holderIdentity": "thief"}}
    await refusal(agent.merge_patch(LEASES, "hypermesh-operator", stolen, SYSTEM))
    await refusal(agent.delete(LEASES, "hypermesh-operator", SYSTEM))
    held = await accounts.admin.get(LEASES, "hypermesh-operator", SYSTEM)
    assert held["spec"]["holderIdentity"] == "me"
    await accounts.admin.delete(LEASES, "hypermesh-operator", SYSTEM)


async def beat(kube: Kube, name: str) -> None:
    await heartbeat(kube, SYSTEM, name, holder="me", duration=40, field_manager="hypermesh-agent")


async def test_agent_never_changes_the_owners_word(accounts: Accounts) -> None:
    agent = await accounts.agent("node-5")
    await agent.create(ASSETS, asset("node-5", privacyLevel="Private"))
    name = asset("node-5")["metadata"]["name"]
    change = {"spec": {"sharing": {"privacyLevel": "Public"}}}
    text = await refusal(agent.merge_patch(ASSETS, name, change))
    assert "is the word of its owner" in text
    await accounts.admin.merge_patch(ASSETS, name, change)
    assert (await accounts.admin.get(ASSETS, name))["spec"]["sharing"]["privacyLevel"] == "Public"


async def test_people_do_not_write_an_assets_status(accounts: Accounts) -> None:
    agent = await accounts.agent("node-6")
    await agent.create(ASSETS, asset("node-6"))
    body = {"metadata": {"name": asset("node-6")["metadata"]["name"]}, "status": {"trustScore": 100}}
    text = await refusal(apply(accounts.admin, ASSETS, body, "me", subresource="status"))
    assert "change spec.sharing instead" in text


async def test_only_the_operator_writes_mappings(accounts: Accounts) -> None:
    operator, agent = await accounts.operator(), await accounts.agent("node-1")
    await apply(operator, PROXY_MAPPINGS, mapping("one", "node-1"), "hypermesh-operator")
    text = await refusal(apply(accounts.admin, PROXY_MAPPINGS, mapping("two", "node-1"), "me"))
    assert "is written by hypermesh-operator from the ledger: apply an Allocation instead" in text
    await refusal(apply(agent, PROXY_MAPPINGS, mapping("three", "node-1"), "hypermesh-agent"))


async def test_a_mappings_spec_never_changes(accounts: Accounts) -> None:
    operator = await accounts.operator()
    await apply(operator, PROXY_MAPPINGS, mapping("fixed", "node-1"), "hypermesh-operator")
    changed = mapping("fixed", "node-1")
    changed["spec"]["port"] = 1
    text = await refusal(apply(operator, PROXY_MAPPINGS, changed, "hypermesh-operator"))
    assert "a ProxyMapping's spec never changes" in text


async def test_an_agent_reports_on_its_own_mappings_only(accounts: Accounts) -> None:
    operator = await accounts.operator()
    await apply(operator, PROXY_MAPPINGS, mapping("reported", "node-1"), "hypermesh-operator")
    written = await operator.get(PROXY_MAPPINGS, "reported", TENANT)
    await report_programmed(await accounts.agent("node-1"), written)
    text = await refusal(report_programmed(await accounts.agent("node-2"), written))
    assert "belongs to node node-1, but this agent speaks for node node-2" in text
    text = await refusal(report_programmed(await accounts.unbound_agent(), written))
    assert "no node (its token is bound to none)" in text
    assert "what the agent of node node-1 read back" in await refusal(report_programmed(accounts.admin, written))


async def test_only_the_operator_writes_an_allocations_status(accounts: Accounts) -> None:
    spec = {"type": "memory", "resources": {"memory": "1Gi"}}
    body = {"metadata": {"name": "mine", "namespace": TENANT}}
    await accounts.admin.create(ALLOCATIONS, {**body, "spec": spec})
    wished = {**body, "status": {"proxyAddress": "fd12::1"}}
    text = await refusal(apply(accounts.admin, ALLOCATIONS, wished, "me", subresource="status"))
    assert "hypermesh-operator alone writes it" in text
    operator = await accounts.operator()
    await apply(operator, ALLOCATIONS, wished, "hypermesh-operator", subresource="status")


async def test_an_allocation_is_born_with_the_finalizer(accounts: Accounts) -> None:
    spec = {"type": "memory", "resources": {"memory": "1Gi"}}
    body = {"metadata": {"name": "born", "namespace": TENANT, "finalizers": ["example.com/other"]}, "spec": spec}
    created = await accounts.admin.create(ALLOCATIONS, body)
    assert created["metadata"]["finalizers"] == ["example.com/other", "hypermesh.online/release"]


async def test_the_operator_writes_no_secrets_but_access_secrets(accounts: Accounts) -> None:
    operator = await accounts.operator()
    named = {"metadata": {"name": "mine-access", "namespace": TENANT}}
    await apply(operator, SECRETS, {**named, "type": "hypermesh.online/access"}, "hypermesh-operator")
    planted = {"metadata": {"name": "planted", "namespace": "kube-system"}, "type": "Opaque"}
    text = await refusal(apply(operator, SECRETS, planted, "hypermesh-operator"))
    assert "hypermesh-operator writes Secrets of type hypermesh.online/access only" in text
    existing = {"metadata": {"name": "others", "namespace": TENANT}, "type": "Opaque"}
    await accounts.admin.create(SECRETS, existing)
    text = await refusal(operator.merge_patch(SECRETS, "others", {"data": {"key": "eA=="}}, TENANT))
    assert "hypermesh-operator writes Secrets of type hypermesh.online/access only" in text
    await refusal(operator.merge_patch(SECRETS, "others", {"type": "hypermesh.online/access"}, TENANT))
    await refusal(operator.merge_patch(SECRETS, "others", {}, TENANT))  # whose answer would show it
    await refusal(operator.get(SECRETS, "mine-access", TENANT))
    await refusal(operator.list(SECRETS, TENANT))
    own = {"metadata": {"name": "hypermesh-operator-key", "namespace": SYSTEM}}
    await apply(operator, SECRETS, own, "hypermesh-operator")
    elsewhere = {"metadata": {"name": "hypermesh-operator-key", "namespace": TENANT}}
    await refusal(apply(operator, SECRETS, elsewhere, "hypermesh-operator"))
