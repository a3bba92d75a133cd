"""Network place: the node calls the validators, so that they can measure how long it takes to answer.

    --validators -> addresses of all ledgers -> once in some epochs one session with each, one after the other

The node only calls, opens no port, and answers a dozen challenges a session. Whom nobody measures is not refused
anything; so failures are told once and tried again in the next epoch. See docs/decisions/0062-network-place.md.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from hypermesh import falcon, places
from hypermesh_clients.mirror import Mirror
from hypermesh_clients.places import Measured, NotMeasured, StillFresh, be_measured

_log = logging.getLogger(__name__)

MOST: Final = 64
"""Ledgers called, the first in order."""
SPREAD: Final = 0.5
"""Nodes call within this part of an epoch, each at its own moment."""
LOOK_S: Final = 60.0

Session = Callable[[str], Awaitable[Measured]]
Resolve = Callable[[str], Awaitable[list[str]]]


@dataclass(frozen=True, slots=True)
class Called:
    """The newest session with one ledger."""

    epoch: int
    microseconds: int = 0


class Placing:
    """Run `run()` beside the rest. validators: host:port, comma-separated; each of a host's addresses is a ledger."""

    def __init__(self, mirror: Mirror, node: bytes, validators: str, session: Session, resolve: Resolve | None = None):
        self._mirror = mirror
        self._node = node
        self._validators = [each for each in validators.split(",") if each]
        self._session = session
        self._resolve = resolve or addresses_of
        self._called: dict[str, Called] = {}
        self._told: dict[str, str] = {}

    async def run(self) -> None:
        """For ever: one round an epoch."""
        await self._mirror.synced.wait()
        while True:
            await self._until(lambda: self._node in self._mirror.nodes)
            number = self._mirror.epoch.number
            share = int.from_bytes(self._node[2:4], "big") / 0x10000
            await asyncio.sleep(share * SPREAD * self._mirror.parameters.epoch_ms / 1000)
            await self.round()
            await self._until(lambda: self._mirror.epoch.number != number)  # noqa: B023 - asked before it changes

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            with suppress(TimeoutError):
                await self._mirror.wait_until(true, LOOK_S)

    async def round(self) -> None:
        """Call those whose bound of this node is getting old; nobody where there are too few of them."""
        targets = sorted({each for name in self._validators for each in await self._resolve(name)})[:MOST]
        self._called = {target: self._called[target] for target in targets if target in self._called}
        if len(targets) < places.PLACED:
            return
        for target in targets:
            held = self._called.get(target)
            if held is None or held.epoch + places.MEASURED_AGAIN <= self._mirror.epoch.number:
                await self._call(target)

    async def _call(self, target: str) -> None:
        try:
            measured = await self._session(target)
        except StillFresh:
            self._called[target] = Called(self._mirror.epoch.number)
            return
        except NotMeasured as error:
            if self._told.get(target) != str(error):
                self._told[target] = str(error)
                _log.info("network place: %s", error)
            return
        self._told.pop(target, None)
        self._called[target] = Called(min(measured.epoch, self._mirror.epoch.number), measured.microseconds)
        _log.debug("network place: %s measured %d us", target, measured.microseconds)

    def validators(self) -> float:
        """How many ledgers have measured this node lately."""
        oldest = self._mirror.epoch.number - places.FRESH_EPOCHS
        return float(sum(each.epoch >= oldest for each in self._called.values()))

    def nearest_s(self) -> float:
        """The smallest round trip that a ledger told since the start, seconds; 0 without any."""
        return min((each.microseconds for each in self._called.values() if each.microseconds), default=0) / 1e6


def sessions(ca_pem: bytes, tls_name: str | None, keypair: falcon.KeyPair, mirror: Mirror) -> Session:
    """Real ones. tls_name: in the ledgers' certificates, when it isn't their address."""

    async def session(target: str) -> Measured:
        return await be_measured(target, ca_pem, tls_name, keypair, mirror.chain_id)

    return session


async def addresses_of(name: str) -> list[str]:
    """All IPv6 addresses of host:port as targets; none when the name is not known (yet)."""
    host, _, port = name.rpartition(":")
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host.strip("[]"), int(port), family=socket.AF_INET6, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        _log.debug("network place: %s has no address: %s", name, error)
        return []
    return [f"[{address[4][0]!s}]:{address[4][1]!s}" for address in found]
