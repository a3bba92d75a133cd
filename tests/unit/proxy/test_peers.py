"""Which routes there should be: one for each certified node of this cluster whose address Kubernetes knows."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

import pytest
from proxy_world import World, member

from hypermesh import addressing, falcon
from hypermesh.v1 import trust_pb2
from hypermesh_agent.proxy import peers
from hypermesh_agent.proxy.config import ProxyConfig
from hypermesh_agent.proxy.routes import Route

HERE, THERE = IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")


def test_the_first_ipv6_internal_address_counts() -> None:
    entries = [
        {"type": "Hostname", "address": "node-1"},
        {"type": "ExternalIP", "address": "2001:db8:ffff::1"},
        {"type": "InternalIP", "address": "10.0.0.1"},
        {"type": "InternalIP", "address": "2001:db8::2"},
    ]
    assert peers.node_address({"status": {"addresses": entries}}) == THERE
    assert peers.node_address({"status": {"addresses": entries[:3]}}) is None
    assert peers.node_address({"metadata": {}}) is None


def test_only_certified_nodes_of_this_cluster_are_peers(world: World) -> None:
    good = member(world.root, trust_pb2.ROLE_NODE, "node-2", node_counter=3)
    older = member(world.root, trust_pb2.ROLE_NODE, "node-2", not_before=1_000)
    elsewhere = member(world.root, trust_pb2.ROLE_NODE, "node-3", cluster=2, cluster_uid="other")
    forged = member(falcon.generate(), trust_pb2.ROLE_NODE, "node-4")
    records = [item.record for item in (good, older, elsewhere, forged, world.operator)]
    for order in (records, records[::-1]):
        found = peers.peer_prefixes(order, world.root.public, world.here.cluster_uid)
        assert found == {"node-2": addressing.node_prefix(world.here.federation, 1, good.key_id, 3)}


def test_a_peer_is_routed_when_its_address_is_known_and_never_over_our_own_prefix() -> None:
    own = Route(IPv6Network("fd00:0:0:1:100::/88"), None, HERE)
    other = IPv6Network("fd00:0:0:1:200::/88")
    prefixes = {
        "node-1": own.prefix,
        "node-2": other,
        "node-3": IPv6Network("fd00:0:0:1:300::/88"),
        "thief": own.prefix,
    }
    addresses = {"node-1": HERE, "node-2": THERE, "thief": THERE}
    wanted = peers.routes(own, "node-1", prefixes, addresses)
    assert wanted == {own.prefix: own, other: Route(other, THERE)}


def test_configuration_from_the_environment() -> None:
    assert ProxyConfig.from_environment({}) == ProxyConfig()
    given = {"HYPERMESH_STATE": "/s", "HYPERMESH_POOL": "/p", "HYPERMESH_MINIMUM_TRUST": "4200"}
    config = ProxyConfig.from_environment(given)
    assert (config.state, config.pool, config.minimum_trust) == (Path("/s"), Path("/p"), 4200)
    with pytest.raises(ValueError, match="HYPERMESH_MINIMUM_TRUST=lots: write a whole number"):
        ProxyConfig.from_environment({"HYPERMESH_MINIMUM_TRUST": "lots"})
