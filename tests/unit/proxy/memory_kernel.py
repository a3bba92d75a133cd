"""An in-memory kernel table with the verbs and errors of the real one, for logic tests without root.

test_kernel_double_is_faithful (integration) runs the same steps against this and against the real kernel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from ipaddress import IPv6Network

from hypermesh_agent.proxy.kernel import Diverged
from hypermesh_agent.proxy.mappings import Difference, Key, Target, chunks
from hypermesh_agent.proxy.nftables import MAX_BATCH


class MemoryKernel:
    """`table` None: there is none. Foreign hands change `table` and raise `changes`."""

    def __init__(self, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self.table: dict[Key, Target] | None = None
        self.own: IPv6Network | None = None
        self.changes = 1
        self.transactions: list[tuple[int, int]] = []
        self.refuse: OSError | None = None
        self._now_ms = now_ms

    def intact(self, own: IPv6Network) -> bool:
        return self.table is not None and self.own == own

    def rebuild(self, own: IPv6Network, wanted: Mapping[Key, Target]) -> None:
        self._accept(len(wanted), 0)
        self.own, self.table = own, dict(wanted)

    def read(self, keys: Collection[Key] | None = None) -> dict[Key, Target]:
        if self.table is None:
            if keys is not None:
                return {}
            raise Diverged("table ip6 hypermesh is not in the kernel")
        live = {key: target for key, target in self.table.items() if target.expires_ms > self._now_ms()}
        return live if keys is None else {key: live[key] for key in keys if key in live}

    def change(self, change: Difference) -> None:
        for part in chunks(change, MAX_BATCH):
            if self.table is None or not part.remove <= self.read().keys():
                raise Diverged("table ip6 hypermesh: No such file or directory")
            self._accept(len(part.add), len(part.remove))
            for key in part.remove:
                del self.table[key]
            self.table.update(part.add)

    def drop(self) -> None:
        self._accept(0, 0)
        self.table = None

    def generation(self) -> int:
        return self.changes

    def _accept(self, added: int, removed: int) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.changes += 1
        self.transactions.append((added, removed))
