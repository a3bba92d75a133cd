"""How a ledger with peers begins: with what it holds, from the first block, or from a peer's snapshot.

    own height, peers' answers -> decide -> GoOn | Replay | Restore | Wait
    Restore -> agreed: each peer's word on one header, over TLS -> Trust, what CometBFT's light client begins with

Pure, but for `agreed`, which asks. Nothing here deletes anything (see fetching).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hypermesh.v1 import ledger_pb2
from hypermesh_clients.ledger import LedgerClient, LedgerUnavailable, NotHeld

Answers = Mapping[str, ledger_pb2.PeerResponse]

PATIENCE_S: Final = 6.0
"""Longest wait for a peer that does not answer."""
SNAPSHOT_PATIENCE_S: Final = 30.0
"""Longest wait for a snapshot of a chain whose blocks are all there: one is made when a ledger gets peers."""
SHORT_BLOCKS: Final = 1_000
"""A chain that is no longer is replayed, if its blocks are there: seconds, and nothing of its past is missing."""
ASK_S: Final = 5.0
UNDER_WAY: Final = 2
"""Blocks that others may have before the state here has, after a crash."""
TRIED: Final = 3
"""Snapshots of which peers are asked, the newest first."""


@dataclass(frozen=True, slots=True)
class Own:
    """What this ledger holds. height: of its state; interrupted: a restore has not ended, so nothing here counts."""

    height: int
    chain: bool
    interrupted: bool
    alone: bool = False
    """Its state knows nobody but itself who signs blocks."""


@dataclass(frozen=True, slots=True)
class GoOn:
    """With what is here; with nothing here, begin a chain."""


@dataclass(frozen=True, slots=True)
class Replay:
    """All blocks, from the first. genesis: a peer's file."""

    target: str
    genesis: bytes


@dataclass(frozen=True, slots=True)
class Restore:
    """From a snapshot of one of these heights, the newest first. away: what is here is too old to go on with."""

    target: str
    genesis: bytes
    heights: tuple[int, ...]
    away: bool


@dataclass(frozen=True, slots=True)
class Stale:
    """An older copy of what has gone on elsewhere, whose key would sign these heights again. best: where peers are."""

    best: int


@dataclass(frozen=True, slots=True)
class Wait:
    """The reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Trust:
    """A header that peers agree on; hash in CometBFT's hex."""

    height: int
    hash: str


def decide(
    own: Own, answers: Answers, listed: int, founder: bool, waited_s: float
) -> GoOn | Replay | Restore | Stale | Wait:
    """listed: how many other ledgers there are; waited_s: since they were first asked."""
    living = {target: each for target, each in answers.items() if each.genesis and each.height}
    patient = len(answers) == listed or waited_s > PATIENCE_S
    if own.height and not own.interrupted:
        if not patient:
            return Wait("some peers have not answered")
        return _stale(own, living, listed) or _away(own, living, listed) or GoOn()
    if living:
        return _join(own, living, patient, waited_s)
    if founder and not own.interrupted:
        if own.chain and patient:
            return GoOn()
        if not own.chain and len(answers) == listed:
            begun = [(target, each) for target, each in answers.items() if each.genesis]
            return Replay(begun[0][0], begun[0][1].genesis) if begun else GoOn()
    return Wait("no peer that answers has a chain yet")


def _join(own: Own, living: Answers, patient: bool, waited_s: float) -> Replay | Restore | Wait:
    target, first = min(living.items(), key=lambda item: (item[1].earliest_height, item[0]))
    best = max(each.height for each in living.values())
    whole = [each for each in living.values() if each.earliest_height == 1]
    if whole and best <= SHORT_BLOCKS:
        return Replay(target, first.genesis)
    if heights := _snapshots(living):
        return Restore(target, first.genesis, heights, own.height > 0) if patient else Wait("some have not answered")
    silent = [each for each in living.values() if each.earliest_height == 0]  # just starting, or an older program
    if (whole or silent) and waited_s > SNAPSHOT_PATIENCE_S:
        return Replay(target, first.genesis)
    return Wait(f"no peer has a snapshot yet, and the chain has {best} blocks")


def _stale(own: Own, living: Answers, listed: int) -> Stale | None:
    """Who signs alone is never behind others by more than the block under way: no block is made without it."""
    ahead = [each.height for each in living.values() if each.height > own.height + UNDER_WAY]
    return Stale(max(ahead)) if own.alone and len(ahead) * 2 > listed else None


def _away(own: Own, living: Answers, listed: int) -> Restore | None:
    """When nobody keeps the block that is next here, and more than half of all others say they have forgotten it."""
    following = own.height + 1
    forgotten = [each for each in living.values() if each.earliest_height > following]
    kept = [each for each in living.values() if each.earliest_height <= following <= each.height]
    heights = tuple(height for height in _snapshots(living) if height > own.height)
    if kept or len(forgotten) * 2 <= listed or not heights:
        return None
    target = min(living)
    return Restore(target, living[target].genesis, heights, away=True)


def _snapshots(living: Answers) -> tuple[int, ...]:
    told = {height for each in living.values() for height in each.snapshot_heights if height < each.height}
    return tuple(sorted(told, reverse=True)[:TRIED])


async def agreed(clients: Mapping[str, LedgerClient], answers: Answers, heights: tuple[int, ...]) -> Trust | None:
    """The first header on which peers agree: more than two thirds of those that keep it by their own word, and at least
    half of all that have a chain, since a height that only one claims to have reached may be made up. None: no header.
    """
    living = {target: each for target, each in answers.items() if each.height}
    for height in heights:
        keeping = [target for target, each in living.items() if each.earliest_height <= height < each.height]
        told = await asyncio.gather(*(_header_hash(clients[target], height) for target in keeping))
        named = Counter(each for each in told if each is not None)
        for name, count in named.items():
            if count * 3 > len(keeping) * 2 and count * 2 >= len(living):
                return Trust(height, name)
    return None


async def _header_hash(client: LedgerClient, height: int) -> str | None:
    with contextlib.suppress(LedgerUnavailable, NotHeld, ValueError, KeyError, TypeError, RecursionError):
        commit = json.loads((await client.light_block(height, ASK_S)).commit)["signed_header"]["commit"]
        name = str(commit["block_id"]["hash"])
        if int(commit["height"]) == height and len(name) == 64 and set(name) <= set("0123456789ABCDEF"):
            return name
    return None
