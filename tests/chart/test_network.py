"""Who reaches whom under the chart's NetworkPolicies.

The cluster of these tests enforces no policies, so what is judged here is what the chart says, with the semantics of
networking.k8s.io/v1 (pods that some policy selects for a direction accept only what one of its rules lists).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Set
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from .conftest import NAMESPACE, helm_template

Objects = list[dict[str, Any]]
NODE_PREFIX = "fd00:10::/64"
NAME_OF_NAMESPACE = "kubernetes.io/metadata.name"


@dataclass(frozen=True)
class Place:
    """A pod (its labels and namespace) or, without labels, an address outside the pod network."""

    address: str
    labels: frozenset[tuple[str, str]] = frozenset()
    namespace: str = NAMESPACE


def pods(rendered: Objects) -> dict[str, tuple[Place, dict[str, int]]]:
    """Component -> where its pods are, and its named ports; agents are on the host network, so no pod."""
    found: dict[str, tuple[Place, dict[str, int]]] = {}
    for item in rendered:
        if item["kind"] in ("Deployment", "StatefulSet"):
            template = item["spec"]["template"]
            ports = {
                port["name"]: port["containerPort"]
                for container in template["spec"]["containers"]
                for port in container["ports"]
            }
            labels = template["metadata"]["labels"]
            found[labels["app.kubernetes.io/component"]] = (
                Place(f"fd00:20::{len(found) + 1}", frozenset(labels.items())),
                ports,
            )
    return found


def policies(rendered: Objects) -> Objects:
    return [item["spec"] for item in rendered if item["kind"] == "NetworkPolicy"]


def selects(selector: dict[str, Any], place: Place) -> bool:
    """Of a policy, which is in our namespace."""
    return bool(place.labels) and place.namespace == NAMESPACE and matches(selector, place.labels)


def matches(selector: dict[str, Any], labels: Set[tuple[str, str]]) -> bool:
    return set(selector.get("matchLabels", {}).items()) <= labels


def peer_allows(peer: dict[str, Any], place: Place) -> bool:
    if "ipBlock" in peer:
        return ipaddress.ip_address(place.address) in ipaddress.ip_network(peer["ipBlock"]["cidr"])
    if not place.labels:
        return False
    spaces = peer.get("namespaceSelector", {"matchLabels": {NAME_OF_NAMESPACE: NAMESPACE}})
    own = {(NAME_OF_NAMESPACE, place.namespace)}
    return matches(spaces, own) and matches(peer.get("podSelector", {}), place.labels)


def allowed(
    rendered: Objects, direction: str, own: Place, other: Place, port: tuple[str, int], names: dict[str, int]
) -> bool:
    """One direction's verdict at `own`; `names` are the ports of the pod that is called."""
    rules = "ingress" if direction == "Ingress" else "egress"
    side = "from" if direction == "Ingress" else "to"
    governing = [each for each in policies(rendered) if selects(each["podSelector"], own)]
    governing = [each for each in governing if direction in each["policyTypes"]]
    if not governing:
        return True
    for rule in (rule for each in governing for rule in each.get(rules, [])):
        ports = {(item["protocol"], names.get(item["port"], item["port"])) for item in rule["ports"]}
        if port in ports and (side not in rule or any(peer_allows(peer, other) for peer in rule[side])):
            return True
    return False


def reaches(rendered: Objects, source: Place, target: Place, port: int, protocol: str = "TCP") -> bool:
    names = next((ports for place, ports in pods(rendered).values() if place == target), {})
    wanted = (protocol, port)
    return allowed(rendered, "Egress", source, target, wanted, names) and allowed(
        rendered, "Ingress", target, source, wanted, names
    )


def render(*values: str) -> Objects:
    done = helm_template(*values)
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


AGENT = Place("fd00:10::7")
STRANGER = Place("fd00:20::99", frozenset({("app", "stranger")}), "elsewhere")
API_SERVER = Place("fd00:10::2")
DNS = Place("fd00:20::53", frozenset({("k8s-app", "kube-dns")}), "kube-system")
PROMETHEUS = Place("fd00:20::77", frozenset({("app", "prometheus")}), "monitoring")
OUTSIDE = Place("2001:db8::1")


def named(peers: str, namespace: str) -> str:
    return rf"networkPolicy.{peers}[0].namespaceSelector.matchLabels.kubernetes\.io/metadata\.name={namespace}"


NARROWED = (
    f"networkPolicy.agentCIDRs={{{NODE_PREFIX}}}",
    f"networkPolicy.apiServerCIDRs={{{API_SERVER.address}/128}}",
    named("dnsPeers", DNS.namespace),
    named("metricsPeers", PROMETHEUS.namespace),
)


@pytest.fixture(scope="module", params=["default", "narrowed"])
def installed(request: pytest.FixtureRequest) -> Objects:
    return render(*(NARROWED if request.param == "narrowed" else ()))


def test_every_pod_of_ours_is_governed_in_both_directions(installed: Objects) -> None:
    for component, (place, _) in pods(installed).items():
        (policy,) = (each for each in policies(installed) if selects(each["podSelector"], place))
        assert policy["policyTypes"] == ["Ingress", "Egress"], component


def test_what_the_mesh_needs_passes(installed: Objects) -> None:
    places = {component: place for component, (place, _) in pods(installed).items()}
    needed = [
        (places["operator"], places["ledger"], 7450),
        (places["operator"], places["trustchain"], 7440),
        (places["ledger"], places["trustchain"], 7440),
        (AGENT, places["ledger"], 7450),
        (AGENT, places["trustchain"], 7440),
        *((place, API_SERVER, port) for place in places.values() for port in (443, 6443)),
        *((place, DNS, 53) for place in places.values()),
        *((PROMETHEUS, place, 7470) for place in places.values()),
    ]
    refused = [flow for flow in needed if not reaches(installed, *flow)]
    assert not refused
    assert all(reaches(installed, place, DNS, 53, "UDP") for place in places.values())


def test_what_nobody_needs_does_not_pass(installed: Objects) -> None:
    places = {component: place for component, (place, _) in pods(installed).items()}
    needless = [
        (places["ledger"], places["operator"], 7450),
        (places["trustchain"], places["ledger"], 7450),
        (places["operator"], STRANGER, 8080),
        (STRANGER, places["ledger"], 26657),
        (STRANGER, places["operator"], 7450),
        (places["operator"], OUTSIDE, 80),
        (places["operator"], OUTSIDE, 7450),
        (AGENT, places["operator"], 8080),
    ]
    assert not [flow for flow in needless if reaches(installed, *flow)]


def test_what_is_open_by_default_is_closed_by_a_value_each() -> None:
    """What docs/concepts/trust.md says: of each row the flow passes until its value is given."""
    wide = render()
    places = {component: place for component, (place, _) in pods(wide).items()}
    rows = {
        NARROWED[0]: [(STRANGER, places["ledger"], 7450), (STRANGER, places["trustchain"], 7440)],
        NARROWED[1]: [(place, OUTSIDE, port) for place in places.values() for port in (443, 6443, 8443, 16443)],
        NARROWED[2]: [(place, OUTSIDE, port) for place in places.values() for port in (53, 5353)],
        NARROWED[3]: [(other, place, 7470) for other in (STRANGER, OUTSIDE) for place in places.values()],
    }
    for value, flows in rows.items():
        closed = render(value)
        assert [flow for flow in flows if not reaches(wide, *flow)] == [], value
        assert [flow for flow in flows if reaches(closed, *flow)] == [], value
    assert reaches(wide, places["operator"], OUTSIDE, 53, "UDP")
    assert not reaches(render(NARROWED[2]), places["operator"], OUTSIDE, 53, "UDP")


def test_an_api_server_elsewhere_is_reached_when_named() -> None:
    odd = render("networkPolicy.apiServerPorts={7000}")
    place, _ = pods(odd)["operator"]
    assert reaches(odd, place, API_SERVER, 7000)
    assert not reaches(odd, place, API_SERVER, 6443)


def test_policies_can_be_left_out() -> None:
    assert not policies(render("networkPolicy.enabled=false"))


def test_validators_reach_each_other_and_nobody_else_reaches_their_p2p() -> None:
    for values in ((), NARROWED):
        four, one = render("ledger.validators=4", *values), render(*values)
        places = {component: place for component, (place, _) in pods(four).items()}
        ledger = places["ledger"]
        other = Place("fd00:20::42", ledger.labels)
        assert reaches(four, other, ledger, 26656)
        assert reaches(four, other, ledger, 7450)
        assert not [
            each for each in (places["operator"], AGENT, STRANGER, OUTSIDE) if reaches(four, each, ledger, 26656)
        ]
        assert reaches(one, other, ledger, 26656), "those that join it are there before it knows of them"
        assert not [
            each for each in (places["operator"], AGENT, STRANGER, OUTSIDE) if reaches(one, each, ledger, 26656)
        ]
