"""The kernel's table of mappings behind a few verbs: read, change, rebuild, drop. Blocking; run in a worker thread.

A `Kernel` holds no wish of its own: whoever uses it decides what the table should hold (programming.py), so that
logic runs in tests against an in-memory table with the same verbs and the same errors.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from ipaddress import IPv6Network
from typing import Final, Protocol

from hypermesh_agent.proxy import elements, nftables, ruleset
from hypermesh_agent.proxy.mappings import Difference, Key, Target, chunks
from hypermesh_agent.proxy.netlink import Interrupted, Message, NetlinkError, Socket

_NETFILTER: Final = 12
_DUMP_ATTEMPTS: Final = 20
_DIVERGED: Final = (errno.ENOENT, errno.EEXIST, errno.EBUSY)
_ASK_AT_MOST: Final = 64
"""For more keys than this one dump is cheaper than asking for each."""


class Diverged(Exception):
    """The table, or an element to delete, is not in the kernel (any more): read again and decide anew."""


class Kernel(Protocol):
    """What programming.py needs. Every method raises OSError for what the kernel refuses for other reasons."""

    def intact(self, own: IPv6Network) -> bool:
        """True when chains, rules and map are exactly ours."""

    def rebuild(self, own: IPv6Network, wanted: Mapping[Key, Target]) -> None:
        """Replaces the table by a right one in one transaction that holds the first MAX_BATCH elements too."""

    def read(self, keys: Collection[Key] | None = None) -> dict[Key, Target]:
        """All elements; raises Diverged when there is no table. Or those of `keys` that are there: none without one."""

    def change(self, change: Difference) -> None:
        """Adds and removes, up to MAX_BATCH keys a transaction, each transaction wholly or not. Raises Diverged."""

    def drop(self) -> None:
        """Removes the table, there or not."""

    def generation(self) -> int:
        """Differs from an earlier answer when any ruleset of this network namespace changed in between."""


class NetlinkKernel:
    """The real one, of the network namespace that it was made in."""

    def __init__(self, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._socket = Socket(_NETFILTER)
        self._lock = threading.Lock()
        self._now_ms = now_ms

    def close(self) -> None:
        self._socket.close()

    def intact(self, own: IPv6Network) -> bool:
        try:
            chains, rules, sets = (self._dump(request) for request in ruleset.ask_structure())
        except Diverged:
            return False
        return ruleset.read_structure(chains, rules, sets) == ruleset.expected(own)

    def rebuild(self, own: IPv6Network, wanted: Mapping[Key, Target]) -> None:
        parts = list(chunks(Difference(dict(wanted), frozenset()), nftables.MAX_BATCH))
        first = elements.add_elements(parts[0].add, self._now_ms()) if parts else ()
        self._send([*ruleset.rebuild(own), *first])
        for part in parts[1:]:
            self._send(elements.add_elements(part.add, self._now_ms()))

    def read(self, keys: Collection[Key] | None = None) -> dict[Key, Target]:
        if keys is None or len(keys) > _ASK_AT_MOST:
            asked = self._now_ms()
            try:
                found = elements.read_elements(self._dump(elements.ask_elements()), asked, self._now_ms())
            except Diverged:
                if keys is None:
                    raise
                return {}
            return found if keys is None else {key: found[key] for key in keys if key in found}
        found = {}
        for key in keys:
            with self._lock:
                asked = self._now_ms()
                try:
                    answer = self._socket.ask(elements.ask_elements([key]))
                except NetlinkError as error:
                    if error.errno != errno.ENOENT:
                        raise
                    continue
            found.update(elements.read_elements(answer, asked, self._now_ms()))
        return found

    def change(self, change: Difference) -> None:
        for part in chunks(change, nftables.MAX_BATCH):
            additions = elements.add_elements(part.add, self._now_ms())
            self._send([*elements.delete_elements(part.remove), *additions])

    def drop(self) -> None:
        self._send(ruleset.drop())

    def generation(self) -> int:
        with self._lock:
            return nftables.read_generation(self._socket.ask(nftables.ask_generation()))

    def _send(self, bodies: Iterable[nftables.Body]) -> None:
        batch = nftables.batch(bodies)
        with self._lock:
            try:
                self._socket.transact(batch.data, batch.last)
            except NetlinkError as error:
                if error.errno in _DIVERGED:
                    raise Diverged(f"table ip6 {nftables.TABLE}: {error.strerror}") from error
                raise

    def _dump(self, request: bytes) -> list[Message]:
        for _ in range(_DUMP_ATTEMPTS):
            with self._lock:
                try:
                    return self._socket.dump(request)
                except NetlinkError as error:
                    if error.errno == errno.ENOENT:
                        raise Diverged(f"table ip6 {nftables.TABLE} is not in the kernel") from error
                    if error.errno != errno.EINTR:
                        raise
                except Interrupted:
                    pass
        raise NetlinkError(errno.EAGAIN, f"table ip6 {nftables.TABLE} changes faster than it can be read")
