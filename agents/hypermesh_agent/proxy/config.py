"""Settings of the proxy part, from the environment that the chart sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from hypermesh.resources import RESOURCE_PORT


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """Where regions live and how strict the node is.

    state: directory of the memory regions' tmpfs; pool: directory of storage regions, None when no storage is given;
    minimum_trust: least trust score (0-10000) of an operator whose mappings this node programs.
    """

    state: Path = Path("/var/lib/hypermesh")
    pool: Path | None = None
    cgroup_root: Path = Path("/sys/fs/cgroup")
    port: int = RESOURCE_PORT
    minimum_trust: int = 0
    audit_seconds: float = 10.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """HYPERMESH_STATE, HYPERMESH_POOL, HYPERMESH_CGROUP_ROOT, HYPERMESH_MINIMUM_TRUST. Raises ValueError."""
        pool = environment.get("HYPERMESH_POOL", "")
        trust = environment.get("HYPERMESH_MINIMUM_TRUST", "") or "0"
        if not trust.isdecimal() or int(trust) > 10_000:
            raise ValueError(f"HYPERMESH_MINIMUM_TRUST={trust}: write a whole number from 0 to 10000")
        return cls(
            state=Path(environment.get("HYPERMESH_STATE", "") or "/var/lib/hypermesh"),
            pool=Path(pool) if pool else None,
            cgroup_root=Path(environment.get("HYPERMESH_CGROUP_ROOT", "") or "/sys/fs/cgroup"),
            minimum_trust=int(trust),
        )
