"""The address plan: apart from everyone else's, and without overlap inside."""

from __future__ import annotations

from ipaddress import IPv6Network
from itertools import combinations
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from local_cluster.addresses import MAX_NODES, Plan

directories = st.text(min_size=1, max_size=40).map(lambda text: Path("/state") / text.replace("\0", "_").strip("/."))


@given(directories)
def test_every_range_lies_in_the_prefix_and_none_overlap(directory: Path) -> None:
    plan = Plan.of(directory)
    ranges = [plan.machines, plan.services, *(plan.pods_of(number) for number in range(1, MAX_NODES + 1))]
    assert all(item.subnet_of(plan.prefix) for item in [*ranges, plan.pods])
    assert not any(one.overlaps(other) for one, other in combinations(ranges, 2))
    assert all(item.subnet_of(plan.pods) for item in ranges[2:])


@given(directories)
def test_the_prefix_is_unique_local_and_names_fit_the_kernel(directory: Path) -> None:
    plan = Plan.of(directory)
    assert plan.prefix.prefixlen == 48
    assert plan.prefix.subnet_of(IPv6Network("fd00::/8"))
    assert len(plan.host_link) <= 15
    first = int(plan.mac(1).split(":")[0], 16)
    assert first & 0b01 == 0, "unicast"
    assert first & 0b10 == 0b10, "locally administered"


def test_addresses_and_macs_of_one_plan_are_all_different() -> None:
    plan = Plan.of(Path("/somewhere/build/cluster"))
    addresses = [plan.host, plan.control_plane, *(plan.node(number) for number in range(1, MAX_NODES + 1))]
    assert len(set(addresses)) == len(addresses)
    macs = [plan.mac(number) for number in range(MAX_NODES + 2)]
    assert len(set(macs)) == len(macs)


def test_two_state_directories_share_nothing() -> None:
    one, other = Plan.of(Path("/a/build/cluster")), Plan.of(Path("/b/build/cluster"))
    assert not one.prefix.overlaps(other.prefix)
    assert one.host_link != other.host_link
    assert one.cgroup != other.cgroup


def test_the_plan_of_a_directory_never_changes() -> None:
    """A new release must find the cluster of the old one, to end it."""
    plan = Plan.of(Path("/checkout/build/cluster"))
    assert (plan.identity, str(plan.prefix)) == ("966f0526", "fdca:28ff:1005::/48")
