"""The cluster's network: a bridge in a namespace of its own (the switch) and a cable from each machine to it.

The host gets one link, so that it reaches machines, pods and Services; nothing else of its network is touched, and
no firewall of the host (such as a container engine's) sees what machines say to each other. The cables are veth
pairs: they vanish with the namespace of either end. Duplicate address detection is off: addresses are ours by plan,
and it would cost a second per link.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

from local_cluster.addresses import Plan
from local_cluster.state import ClusterError

BRIDGE = "br0"
UPLINK = "eth0"
COMMAND_SECONDS = 30

SWITCH_SYSCTLS = {"net/ipv6/conf/all/disable_ipv6": "0"}
NODE_SYSCTLS = {
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv6/conf/default/forwarding": "1",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/all/disable_ipv6": "0",
    # a Service's answer between two pods of one node must pass connection tracking, though it is only bridged
    "net/bridge/bridge-nf-call-ip6tables": "1",
}


def ip(commands: Iterable[str], pid: int = 0) -> None:
    """Runs ip(8) commands, in the network namespace of `pid` if given; raises ClusterError with the first error."""
    enter = ["nsenter", f"--target={pid}", "--net"] if pid else []
    done = subprocess.run(
        [*enter, "ip", "-6", "-batch", "-"],
        input="\n".join(commands) + "\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_SECONDS,
    )
    if done.returncode != 0:
        raise ClusterError(f"network setup failed: {done.stderr.strip()}")


def links() -> dict[str, str]:
    """Every link of the host: name -> alias (the note of who made it, or the empty text)."""
    told = subprocess.run(
        ["ip", "-json", "link", "show"], capture_output=True, text=True, check=True, timeout=COMMAND_SECONDS
    )
    return {item["ifname"]: item.get("ifalias", "") for item in json.loads(told.stdout)}


def alias(directory: Path) -> str:
    """The note on the host's link that says whose it is (at most 255 characters, IFALIASZ)."""
    return f"hypermesh cluster {directory}"[:255]


def refuse_foreign(plan: Plan, directory: Path) -> None:
    """Raises ClusterError when the cluster's link name or prefix is in use by something else."""
    owner = links().get(plan.host_link)
    if owner is not None and owner != alias(directory):
        raise ClusterError(
            f"link {plan.host_link} exists and is not of the cluster in {directory} (it says {owner!r}); "
            f"remove it with `ip link delete {plan.host_link}` or choose another HYPERMESH_CLUSTER_DIR"
        )
    told = subprocess.run(
        ["ip", "-6", "-json", "route", "show", "root", str(plan.prefix)],
        capture_output=True,
        text=True,
        check=True,
        timeout=COMMAND_SECONDS,
    )
    for route in json.loads(told.stdout or "[]"):
        if route.get("dev") != plan.host_link:
            raise ClusterError(
                f"prefix {plan.prefix} is in use: route {route.get('dst')} on {route.get('dev')}; "
                "remove that route or choose another HYPERMESH_CLUSTER_DIR"
            )


def connect_host(plan: Plan, directory: Path, switch: int) -> None:
    """The switch's bridge, and the host's link to it."""
    link = plan.host_link
    ip([f"link add {link} address {plan.mac(0)} type veth peer name host netns {switch}"])
    subprocess.run(["ip", "link", "set", link, "alias", alias(directory)], check=True, timeout=COMMAND_SECONDS)
    ip(
        [
            "link set lo up",
            f"link add {BRIDGE} type bridge forward_delay 0 stp_state 0 mcast_snooping 0",
            f"link set {BRIDGE} up",
            f"link set host master {BRIDGE} up",
        ],
        pid=switch,
    )
    Path(f"/proc/sys/net/ipv6/conf/{link}/disable_ipv6").write_text("0")
    ip([f"address add {plan.host}/64 dev {link} nodad", f"link set {link} up"])


def cluster_routes(plan: Plan, link: str, nodes: int, own: int = 0) -> list[str]:
    """`ip` commands that lead to each node's pods through that node, and to Services through the first.

    `own` is the number of the node they are for: its own pods, and Services, are not elsewhere.
    """
    others = [number for number in range(1, nodes + 1) if number != own]
    routes = [f"route replace {plan.pods_of(number)} via {plan.node(number)} dev {link}" for number in others]
    return routes if own else [*routes, f"route replace {plan.services} via {plan.node(1)} dev {link}"]


def plug(plan: Plan, name: str, number: int, pid: int, switch: int) -> None:
    """A cable from the switch to a machine: 0 the control plane, n the n-th node."""
    address = plan.node(number) if number else plan.control_plane
    ip(
        [
            f"link add {name} type veth peer name {UPLINK} address {plan.mac(1 + number)} netns {pid}",
            f"link set {name} master {BRIDGE} up",
        ],
        pid=switch,
    )
    ip(
        [
            "link set lo up",
            f"address add {address}/64 dev {UPLINK} nodad",
            f"link set {UPLINK} up",
            f"route add default via {plan.host} dev {UPLINK}",
        ],
        pid=pid,
    )
