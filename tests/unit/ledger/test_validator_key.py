"""The validator's key: FIPS 204's expansion agrees with OpenSSL, and CometBFT's file format."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey

from hypermesh_ledger.validator_key import expand, write_validator_key


@pytest.mark.parametrize("seed", [bytes(32), bytes(range(32)), b"\xff" * 32])
def test_expansion_agrees_with_openssl(seed: bytes) -> None:
    public, packed = expand(seed)
    assert public == MLDSA65PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()
    assert len(packed) == 4032
    assert packed[:32] == public[:32]
    assert packed[64:128] == hashlib.shake_256(public).digest(64)


def test_the_file_is_cometbfts_and_private(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    write_validator_key(path)
    document = json.loads(path.read_text())
    public = base64.b64decode(document["pub_key"]["value"])
    assert document["pub_key"]["type"] == "cometbft/PubKeyMlDsa65"
    assert document["address"] == hashlib.sha256(public).hexdigest()[:40].upper()
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        write_validator_key(path)
