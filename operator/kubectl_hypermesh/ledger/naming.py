"""What people type -> ids of the ledger: 64 hex digits as they are, names through Kubernetes or the ledger's nodes."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import Final

from hypermesh.v1 import trust_pb2
from hypermesh_clients.kube import NotFound
from hypermesh_clients.kube_resources import ALLOCATIONS, ASSETS
from hypermesh_clients.ledger import LedgerClient, LedgerUnavailable
from hypermesh_clients.mirror import Mirror, View
from kubectl_hypermesh.ledger.reach import Reached
from kubectl_hypermesh.options import CommandError, Options

COPY_S: Final = 30.0
NOBODY: Final = bytes(32)
"""A key id that no node has: a copy for it holds all certificates and nothing else."""
_ID: Final = re.compile("[0-9a-f]{64}")


def id_of(text: str) -> bytes | None:
    """The 32 bytes when it is an id."""
    return bytes.fromhex(text) if _ID.fullmatch(text) else None


async def asset_of(there: Reached, text: str) -> bytes:
    """Id of an Asset by its name in Kubernetes, or as it is. Raises CommandError."""
    if (found := id_of(text)) is not None:
        return found
    if there.kube is None:
        raise CommandError(f"{text} is no asset id (64 hex digits), and with --ca no Kubernetes is asked for names")
    try:
        item = await there.kube.get(ASSETS, text)
    except NotFound as error:
        raise CommandError(f"asset {text} does not exist; see: kubectl hypermesh assets") from error
    return _shown(item.get("status", {}).get("assetID"), f"asset {text}")


async def allocation_of(there: Reached, options: Options, text: str) -> bytes:
    """Id of an Allocation by its name in the namespace, or as it is. Raises CommandError."""
    if (found := id_of(text)) is not None:
        return found
    if there.kube is None:
        raise CommandError(
            f"{text} is no allocation id (64 hex digits), and with --ca no Kubernetes is asked for names"
        )
    try:
        item = await there.kube.get(ALLOCATIONS, text, options.namespace)
    except NotFound as error:
        raise CommandError(f"allocation {text} does not exist in namespace {options.namespace}") from error
    return _shown(item.get("status", {}).get("allocationID"), f"allocation {text}")


def _shown(found: str | None, name: str) -> bytes:
    if not found:
        raise CommandError(f"{name} has no id yet; wait with: kubectl wait --for=condition=Ready")
    return bytes.fromhex(found)


async def node_of(there: Reached, text: str) -> bytes:
    """Key id of a node by its Kubernetes name (with Kubernetes: of this cluster), or as it is. Raises CommandError."""
    if (found := id_of(text)) is not None:
        return found
    cluster = None if there.trust is None else there.trust.cluster_uid
    async with copied(there.client, NOBODY) as view:
        newest: tuple[int, bytes] | None = None
        for key_id, record in view.nodes.items():
            body = trust_pb2.CertificateBody.FromString(record.certificate.body)
            if body.role != trust_pb2.ROLE_NODE or body.subject != text:
                continue
            if cluster in (None, body.cluster_uid):  # a node that lost its disk has a new key: the later one counts
                newest = max(newest or (0, b""), (record.enrolled_height, key_id))
    if newest is None:
        raise CommandError(f"no node {text} is enrolled; see: kubectl hypermesh assets")
    return newest[1]


@contextlib.asynccontextmanager
async def copied(client: LedgerClient, node: bytes) -> AsyncIterator[View]:
    """The newest state as far as it concerns a node. Raises LedgerUnavailable."""
    mirror = Mirror(client, node)
    following = asyncio.create_task(mirror.run())
    try:
        try:
            async with asyncio.timeout(COPY_S):
                await mirror.synced.wait()
        except TimeoutError:
            raise LedgerUnavailable(f"The ledger at {client.target} sent no copy within {COPY_S:.0f} s.") from None
        yield mirror.view
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
