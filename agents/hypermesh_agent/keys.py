"""The node's key at rest: made here, wrapped under two halves, never leaving the node.

    $HYPERMESH_STATE/keys/local   32 random bytes, this node's half of the wrapping key
    Secret hypermesh-agent-kek    32 random bytes, the cluster's half, made by TrustChain at its first start
    $HYPERMESH_STATE/keys/node    the key pair, AES-256-GCM under both halves (hypermesh.keyfile)

A copied disk or a copied Secret alone opens nothing. A key file that does not open is never overwritten: the node would
silently become another one and its Assets would be orphaned.
"""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

from hypermesh import falcon, keyfile
from hypermesh_clients.files import write_durably
from hypermesh_clients.kube import Kube
from hypermesh_clients.kube_resources import SECRETS
from hypermesh_clients.trust import KEK_ENTRY, KEK_SECRET

from .identity import IdentityError


async def cluster_half(kube: Kube, namespace: str) -> bytes | None:
    """The cluster's half of the wrapping key; None until TrustChain has made it. Raises IdentityError, KubeError."""
    secret = await kube.get(SECRETS, KEK_SECRET, namespace)
    text = (secret.get("data") or {}).get(KEK_ENTRY, "")
    return _decoded(text, namespace) if text else None


def _decoded(text: str, namespace: str) -> bytes:
    try:
        half = base64.b64decode(text, validate=True)
    except ValueError:
        half = b""
    if len(half) < keyfile.SECRET_BYTES:
        raise IdentityError(
            f"Secret {namespace}/{KEK_SECRET}: {KEK_ENTRY} is not {keyfile.SECRET_BYTES} bytes in base64; restore it "
            "from a backup, or, if no node ever enrolled, remove it and restart deployment/hypermesh-trustchain"
        )
    return half


def node_key(directory: Path, half: bytes) -> falcon.KeyPair:
    """The node's key, made at the first start. Raises IdentityError when it is there but does not open."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    local = local_half(directory)
    path = directory / "node"
    try:
        kek = keyfile.derive_kek(local, half)
        if path.exists():
            return falcon.KeyPair.decode(keyfile.unwrap(path.read_bytes(), kek))
    except (keyfile.KeyFileInvalid, keyfile.WrongKey, falcon.KeyInvalid) as error:
        raise IdentityError(f"key file {path}: {error}") from error
    pair = falcon.generate()
    write_durably(path, keyfile.wrap(pair.encode(), kek), 0o600)
    return pair


def local_half(directory: Path) -> bytes:
    """This node's half of the wrapping key, made at the first start. Raises IdentityError when it got lost."""
    path = directory / "local"
    if path.exists():
        return path.read_bytes()
    if (directory / "node").exists():
        raise IdentityError(
            f"{path} is missing but the key file beside it exists: restore it from a backup, or delete both to "
            "enrol as a new node"
        )
    half = secrets.token_bytes(keyfile.SECRET_BYTES)
    write_durably(path, half, 0o600)
    return half
