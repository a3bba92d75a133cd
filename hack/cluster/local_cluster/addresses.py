"""The address plan of one cluster, derived from where its state lives. Pure.

Two checkouts, or two state directories, never meet: the hash of the state directory's path chooses a Unique Local
prefix (RFC 4193: fd00::/8 and 40 bits), the host's link name, the cgroup name and every MAC address. MAC addresses
are fixed, since a machine that comes back with a new one is unreachable until its neighbours' caches expire (30 s).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

SWITCH = "switch"
CONTROL_PLANE = "control-plane"
API_PORT = 6443
MAX_NODES = 64

_HOST, _CONTROL_PLANE, _FIRST_NODE = 0x1, 0x2, 0x101
_NODE_SUBNET, _SERVICE_SUBNET, _POD_SUBNETS = 0x0, 0x1, 0x8000


def node_name(number: int) -> str:
    """Name of the number-th node, counted from 1."""
    return f"node-{number}"


@dataclass(frozen=True)
class Plan:
    """Every name and address of a cluster; `identity` is 8 hex digits, `prefix` a /48."""

    identity: str
    prefix: IPv6Network

    @classmethod
    def of(cls, state_directory: Path) -> Plan:
        """The plan of the cluster whose state lives in `state_directory` (an absolute path)."""
        digest = hashlib.sha256(str(state_directory).encode()).digest()
        prefix = IPv6Network((b"\xfd" + digest[4:9] + bytes(10), 48))
        return cls(digest[:4].hex(), prefix)

    def _subnet(self, number: int, length: int) -> IPv6Network:
        return IPv6Network((int(self.prefix.network_address) | number << 64, length))

    @property
    def machines(self) -> IPv6Network:
        """The /64 on which host, control plane and nodes see each other."""
        return self._subnet(_NODE_SUBNET, 64)

    @property
    def services(self) -> IPv6Network:
        """The /112 of Service addresses."""
        return self._subnet(_SERVICE_SUBNET, 112)

    @property
    def pods(self) -> IPv6Network:
        """The /49 that holds every node's /64 of pods."""
        return self._subnet(_POD_SUBNETS, 49)

    def pods_of(self, number: int) -> IPv6Network:
        """The /64 of the pods of one node."""
        return self._subnet(_POD_SUBNETS + number, 64)

    @property
    def host(self) -> IPv6Address:
        """The host's own address on the cluster's link."""
        return self.machines[_HOST]

    @property
    def control_plane(self) -> IPv6Address:
        """Where the API server listens."""
        return self.machines[_CONTROL_PLANE]

    def node(self, number: int) -> IPv6Address:
        """Address of the number-th node."""
        return self.machines[_FIRST_NODE + number - 1]

    @property
    def api_service(self) -> IPv6Address:
        """Address of the Service `kubernetes` (always the first of the range)."""
        return self.services[1]

    @property
    def dns_service(self) -> IPv6Address:
        """Address of the Service `kube-dns` (the tenth, as everywhere)."""
        return self.services[10]

    @property
    def api_url(self) -> str:
        """URL of the API server."""
        return f"https://[{self.control_plane}]:{API_PORT}"

    @property
    def host_link(self) -> str:
        """Name of the one link the cluster makes in the host's network namespace (10 of at most 15 characters)."""
        return f"hm{self.identity}"

    @property
    def cgroup(self) -> str:
        """Name of the cgroup, below each hierarchy's root, that holds every process of the cluster."""
        return f"hypermesh-{self.identity}"

    def mac(self, number: int) -> str:
        """A locally administered unicast MAC address: 0 host, 1 control plane, 1 + n the n-th node."""
        octets = bytes([0x02]) + bytes.fromhex(self.identity)[:3] + number.to_bytes(2, "big")
        return ":".join(f"{octet:02x}" for octet in octets)
