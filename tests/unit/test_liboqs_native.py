"""The native liboqs library is the one we mean: version, algorithms, sizes, NIST known answers bit for bit.

The known answers are SHA-256 digests of NIST-format response files, from liboqs 0.13.0
`tests/KATs/{sig,kem}/kats.json`. They are reproduced by tests/known_answers.py; all hundred of FALCON take
longer and are in integration/crypto.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from pathlib import Path
from types import ModuleType

import pytest

from ..known_answers import INSTALLED, LIBRARY, PrivateLibrary, falcon_answers, kem_answers

PADDED_SIGNATURE_BYTES = 1280  # Falcon-1024 padded: FALCON specification 1.2, table 3.3


@pytest.fixture(scope="module")
def oqs() -> ModuleType:
    """liboqs-python on our library; refuses to import it without, because that import would download one."""
    assert LIBRARY.exists(), f"{LIBRARY} is missing: run `python3 hack/liboqs/build.py`"
    os.environ.setdefault("OQS_INSTALL_PATH", str(INSTALLED))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it warns that library and binding differ in version
        import oqs
    module: ModuleType = oqs
    return module


@pytest.fixture
def private(tmp_path: Path) -> PrivateLibrary:
    assert LIBRARY.exists(), f"{LIBRARY} is missing: run `python3 hack/liboqs/build.py`"
    return PrivateLibrary(tmp_path)


def test_falcon_padded_1024_gives_the_nist_known_answer(private: PrivateLibrary) -> None:
    text = falcon_answers(private, "OQS_SIG_falcon_padded_1024", 1793, 2305, 1)
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest == "ddcc5683293388249e6fe85e992ea19d0986d34e060a44f82bc3db524a8c8390"


def test_ml_kem_1024_gives_all_hundred_known_answers(private: PrivateLibrary) -> None:
    digest = hashlib.sha256(kem_answers(private, 100).encode()).hexdigest()
    assert digest == "81d1ae0468f62154885b6f2a293c0eb48f9339645357a88bbbc186c57ab0ace0"


def test_it_is_liboqs_0_13(oqs: ModuleType) -> None:
    assert oqs.oqs_version() == "0.13.0"


def test_only_the_algorithms_we_use_are_built_in(oqs: ModuleType) -> None:
    assert set(oqs.get_enabled_sig_mechanisms()) == {"Falcon-1024", "Falcon-padded-1024"}
    assert set(oqs.get_enabled_kem_mechanisms()) == {"ML-KEM-1024"}


def test_falcon_uses_the_portable_code_only() -> None:
    config = (INSTALLED / "include" / "oqs" / "oqsconfig.h").read_text()
    assert "#define OQS_ENABLE_SIG_falcon_padded_1024 1" in config
    assert "falcon_padded_1024_avx2 1" not in config
    assert "-DOQS_DIST_BUILD=ON" in json.loads((INSTALLED / "BUILD.json").read_text())["options"]


@pytest.mark.parametrize("size", [0, 1, 64, 100_000])
def test_padded_signatures_are_always_1280_bytes(oqs: ModuleType, size: int) -> None:
    with oqs.Signature("Falcon-padded-1024") as signer, oqs.Signature("Falcon-padded-1024") as verifier:
        public = signer.generate_keypair()
        message = os.urandom(size)
        signature = signer.sign(message)
        assert len(signature) == PADDED_SIGNATURE_BYTES
        assert verifier.verify(message, signature, public)
        assert not verifier.verify(message + b"x", signature, public)


@pytest.mark.parametrize("position", [0, 1, 40, 41, 640, -1])
def test_a_flipped_bit_is_refused(oqs: ModuleType, position: int) -> None:
    with oqs.Signature("Falcon-padded-1024") as signer:
        public = signer.generate_keypair()
        damaged = bytearray(signer.sign(b"message"))
        damaged[position] ^= 1
        assert not signer.verify(b"message", bytes(damaged), public)


def test_key_encapsulation_round_trip(oqs: ModuleType) -> None:
    with oqs.KeyEncapsulation("ML-KEM-1024") as receiver, oqs.KeyEncapsulation("ML-KEM-1024") as sender:
        ciphertext, secret = sender.encap_secret(receiver.generate_keypair())
        assert receiver.decap_secret(ciphertext) == secret
        assert len(secret) == 32


def test_the_shim_answers_for_known_and_unknown_algorithms(oqs: ModuleType) -> None:
    assert oqs.native().OQS_SIG_supports_ctx_str(b"Falcon-padded-1024") is False
    assert oqs.native().OQS_SIG_supports_ctx_str(b"no such algorithm") is False


def test_no_path_of_the_build_machine_is_inside() -> None:
    content = LIBRARY.read_bytes()
    assert str(INSTALLED.resolve()).encode() not in content
    assert b"liboqs-build-" not in content
