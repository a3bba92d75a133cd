"""The Secret that holds the root keys and the registry of nodes: opened once, then written under a lock.

Every write carries the resource version it was decided on, so a second TrustChain (a rolling restart, an
operator's mistake) can neither replace the root nor hand out the same address to two nodes.
"""

from __future__ import annotations

import asyncio
import datetime

from hypermesh_clients.key_encryption import KeyEncryptionUnusable, Wrapping, fill_wrapped
from hypermesh_clients.kube import Conflict, Kube
from hypermesh_clients.kube_resources import SECRETS
from hypermesh_clients.kube_secrets import contents, encoded
from hypermesh_trustchain.known_nodes import KnownNodes, RegistryDamaged
from hypermesh_trustchain.roots import FALCON_KEY, PRIVATE, SECRET, Root, RootDamaged, generate

NODES = "nodes"


class RootReplaced(Exception):
    """The Secret holds another root than the one this process works with: restart to take the new one."""


UNUSABLE = (RootReplaced, RootDamaged, RegistryDamaged, KeyEncryptionUnusable)
"""What a person must mend: nobody can be enrolled before."""


class RootStore:
    """Access to Secret `hypermesh-trustchain-root`; `open()` before anything else."""

    def __init__(self, kube: Kube, namespace: str, wrapping: Wrapping | None = None) -> None:
        self._kube = kube
        self._wrapping = wrapping or Wrapping(SECRET, PRIVATE)
        self._namespace = namespace
        self._lock = asyncio.Lock()
        self._root: Root | None = None
        self._version = ""
        self._nodes = KnownNodes({})
        self._broken = asyncio.Event()
        self._problem: Exception | None = None

    @property
    def namespace(self) -> str:
        """Where the Secret is."""
        return self._namespace

    @property
    def known(self) -> int:
        """How many node keys are in the registry."""
        return len(self._nodes.nodes)

    async def broken(self) -> None:
        """Waits until an enrolment finds the Secret unusable, then raises what it found (see UNUSABLE)."""
        await self._broken.wait()
        if self._problem is not None:
            raise self._problem

    async def open(self) -> Root:
        """The root, generated on the very first start. Raises the UNUSABLE, KubeError."""
        now = datetime.datetime.now(datetime.UTC)
        await fill_wrapped(
            self._kube, self._namespace, self._wrapping, FALCON_KEY, lambda: generate(self._namespace, now).encode()
        )
        return await self._load()

    async def enrol(self, key_id: bytes, subject: str, expires: int, now_s: int) -> int:
        """Records a key of node `subject` until `expires`; its node counter. Durable when this returns.

        Raises EnrolmentRefused, RootReplaced, RootDamaged, RegistryDamaged, KubeError.
        """
        async with self._lock:
            while True:
                nodes, counter = self._nodes.enrol(key_id, subject, expires, now_s)
                patch = {
                    "metadata": {"resourceVersion": self._version},
                    "data": encoded({NODES: nodes.encode()}),
                }
                try:
                    written = await self._kube.merge_patch(SECRETS, SECRET, patch, self._namespace)
                except Conflict:
                    await self._reload()
                    continue
                self._nodes, self._version = nodes, written["metadata"]["resourceVersion"]
                return counter

    async def _reload(self) -> None:
        try:
            await self._load()
        except UNUSABLE as error:
            self._problem = error
            self._broken.set()
            raise

    async def _load(self) -> Root:
        secret = await self._kube.get(SECRETS, SECRET, self._namespace)
        data = self._wrapping.open(contents(secret))
        root = Root.decode(data)
        if self._root is not None and self._root.falcon.public != root.falcon.public:
            raise RootReplaced(
                f"Secret {self._namespace}/{SECRET} holds the root of federation {root.federation.hex()}, "
                f"this process that of {self._root.federation.hex()}; restart deployment/hypermesh-trustchain"
            )
        self._root = self._root or root
        self._nodes = KnownNodes.decode(data.get(NODES, b""))
        self._version = secret["metadata"]["resourceVersion"]
        return root
