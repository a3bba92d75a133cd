"""The ed25519 key by which CometBFT's peers know each other, made here so that its id is known before CometBFT runs."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hypermesh_clients.files import write_durably
from hypermesh_ledger.errors import HomeMismatch


def node_id(path: Path) -> str:
    """40 hex digits: the first 20 bytes of SHA-256(public key). Makes the key file when there is none.

    Raises OSError, HomeMismatch for a damaged file.
    """
    if not path.exists():
        private = Ed25519PrivateKey.generate()
        both = private.private_bytes_raw() + private.public_key().public_bytes_raw()
        value = {"type": "tendermint/PrivKeyEd25519", "value": base64.b64encode(both).decode()}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, json.dumps({"priv_key": value}).encode(), 0o600)
    try:
        both = base64.b64decode(json.loads(path.read_text())["priv_key"]["value"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError):
        both = b""
    if len(both) != 64:
        raise HomeMismatch(f"{path} holds no ed25519 key: restore it, or remove it and the peers learn a new one.")
    return hashlib.sha256(both[32:]).digest()[:20].hex()
