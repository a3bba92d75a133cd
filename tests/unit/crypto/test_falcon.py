"""FALCON-1024 as we use it: an independent implementation's vectors, wrong lengths, no download, threads."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypermesh import falcon
from hypermesh.digests import digest

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / "falcon_padded_1024.json").read_text())[
    "vectors"
]


@pytest.fixture(scope="module")
def pair() -> falcon.KeyPair:
    return falcon.generate()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["domain"])
def test_signatures_of_an_independent_implementation_verify(vector: dict[str, Any]) -> None:
    """The vectors were made by a JavaScript implementation that shares no code with liboqs."""
    public, signature = bytes.fromhex(vector["public"]), bytes.fromhex(vector["signature"])
    parts = [bytes.fromhex(part) for part in vector["parts"]]
    assert digest(vector["domain"], *parts).hex() == vector["digest"]
    assert falcon.verify(public, signature, vector["domain"], *parts)
    assert not falcon.verify(public, signature, vector["domain"] + "x", *parts)


# ---- A second verifier, straight from the Falcon specification 1.2 (sections 3.7, 3.11), for n = 1024 ------------

Q, N, BOUND = 12289, 1024, 70265242


def hash_to_point(message: bytes) -> list[int]:
    """Algorithm 3: SHAKE256 to coefficients below q."""
    stream = hashlib.shake_256(message).digest(4 * N)
    values = [int.from_bytes(stream[i : i + 2], "big") for i in range(0, len(stream), 2)]
    return [value % Q for value in values if value < 5 * Q][:N]


def decompress(encoded: bytes) -> list[int]:
    """Algorithm 18: sign, 7 low bits, unary high bits; the rest must be zero."""
    bits = "".join(f"{byte:08b}" for byte in encoded)
    out, at = [], 0
    for _ in range(N):
        low = int(bits[at + 1 : at + 8], 2)
        end = bits.index("1", at + 8)
        value = low + ((end - at - 8) << 7)
        out.append(-value if bits[at] == "1" else value)
        at = end + 1
    assert "1" not in bits[at:]
    return out


def specified_verify(public: bytes, signature: bytes, message: bytes) -> bool:
    import numpy

    assert public[0] == 10
    assert signature[0] == 0x3A
    bits = int.from_bytes(public[1:], "big")
    h = [(bits >> (14 * (N - 1 - i))) & 0x3FFF for i in range(N)]
    s2 = decompress(signature[41:])
    c = hash_to_point(signature[1:41] + message)
    full = numpy.convolve(numpy.array(s2, dtype=object), numpy.array(h, dtype=object))
    reduced = [int(full[i]) - (int(full[i + N]) if i + N < len(full) else 0) for i in range(N)]  # mod x^1024 + 1
    s1 = [(c[i] - reduced[i] + Q // 2) % Q - Q // 2 for i in range(N)]
    return sum(v * v for v in s1) + sum(v * v for v in s2) <= BOUND


def test_the_specification_and_liboqs_agree(pair: falcon.KeyPair) -> None:
    signature = falcon.sign(pair.secret, "operation", b"one", b"two")
    assert specified_verify(pair.public, signature, digest("operation", b"one", b"two"))
    assert not specified_verify(pair.public, signature, digest("operation", b"one", b"2"))


# ---- Our own rules ------------------------------------------------------------------------------------------------


def test_sizes(pair: falcon.KeyPair) -> None:
    assert (len(pair.public), len(pair.secret)) == (falcon.PUBLIC_KEY_BYTES, falcon.SECRET_KEY_BYTES)
    assert len(falcon.sign(pair.secret, "operation")) == falcon.SIGNATURE_BYTES == 1280
    assert pair.key_id() == falcon.key_id(pair.public) == hashlib.sha256(pair.public).digest()


def test_the_secret_is_not_shown(pair: falcon.KeyPair) -> None:
    assert pair.secret.hex() not in repr(pair)
    assert "secret" not in repr(pair)


def test_signatures_bind_domain_and_the_borders_of_parts(pair: falcon.KeyPair) -> None:
    signature = falcon.sign(pair.secret, "operation", b"ab", b"c")
    assert falcon.verify(pair.public, signature, "operation", b"ab", b"c")
    assert not falcon.verify(pair.public, signature, "certificate", b"ab", b"c")
    assert not falcon.verify(pair.public, signature, "operation", b"a", b"bc")
    assert not falcon.verify(pair.public, signature, "operation", b"abc")
    assert not falcon.verify(falcon.generate().public, signature, "operation", b"ab", b"c")


@settings(max_examples=200)
@given(st.integers(0, falcon.SIGNATURE_BYTES * 8 - 1))
def test_any_flipped_bit_of_a_signature_is_refused(bit: int) -> None:
    vector = VECTORS[0]
    damaged = bytearray.fromhex(vector["signature"])
    damaged[bit // 8] ^= 1 << bit % 8
    parts = [bytes.fromhex(part) for part in vector["parts"]]
    assert not falcon.verify(bytes.fromhex(vector["public"]), bytes(damaged), vector["domain"], *parts)


@settings(max_examples=100)
@given(st.binary(max_size=4000), st.binary(max_size=4000))
def test_garbage_of_any_length_is_false_never_an_error(public: bytes, signature: bytes) -> None:
    assert not falcon.verify(public, signature, "operation", b"x")


@settings(max_examples=100)
@given(
    st.binary(min_size=falcon.PUBLIC_KEY_BYTES, max_size=falcon.PUBLIC_KEY_BYTES),
    st.binary(min_size=falcon.SIGNATURE_BYTES, max_size=falcon.SIGNATURE_BYTES),
)
def test_garbage_of_the_right_length_is_false(public: bytes, signature: bytes) -> None:
    assert not falcon.verify(public, signature, "operation", b"x")


@pytest.mark.parametrize("length", [0, 1, 1279, 1281, 1462])
def test_signatures_of_another_length_are_refused(pair: falcon.KeyPair, length: int) -> None:
    signature = falcon.sign(pair.secret, "operation")
    assert not falcon.verify(pair.public, (signature + bytes(200))[:length], "operation")


@pytest.mark.parametrize("change", [lambda key: key[:-1], lambda key: key + b"\0", lambda key: b"\x09" + key[1:]])
def test_other_public_keys_are_refused(pair: falcon.KeyPair, change: Any) -> None:
    signature = falcon.sign(pair.secret, "operation")
    assert not falcon.verify(change(pair.public), signature, "operation")


@pytest.mark.parametrize("secret", [b"", bytes(2304), bytes(2305), b"\xff" * 2305])
def test_bad_secret_keys_are_named(secret: bytes) -> None:
    with pytest.raises(falcon.KeyInvalid, match="secret key"):
        falcon.sign(secret, "operation")


def test_key_pairs_survive_encoding(pair: falcon.KeyPair) -> None:
    assert falcon.KeyPair.decode(pair.encode()) == pair


def test_encoded_key_pairs_are_checked(pair: falcon.KeyPair) -> None:
    mixed = falcon.KeyPair(falcon.generate().public, pair.secret)
    for encoded, message in [
        (pair.encode()[:-1], "4099"),
        (b"\x02" + pair.encode()[1:], "algorithm 2"),
        (mixed.encode(), "differ"),
        (falcon.KeyPair(pair.public, bytes(2305)).encode(), "differ"),
    ]:
        with pytest.raises(falcon.KeyInvalid, match=message):
            falcon.KeyPair.decode(encoded)


def test_many_threads_verify_at_once(pair: falcon.KeyPair) -> None:
    signatures = [(number, falcon.sign(pair.secret, "operation", bytes([number]))) for number in range(16)]

    def right(item: tuple[int, bytes]) -> bool:
        number, signature = item
        return falcon.verify(pair.public, signature, "operation", bytes([number])) and not falcon.verify(
            pair.public, signature, "operation", bytes([number + 1])
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, signatures * 8))


def in_a_process(code: str, prefix: Path, tools: Path) -> subprocess.CompletedProcess[str]:
    """Run `code` with another liboqs prefix, no system liboqs, and tools that tell when they are called."""
    for name in ("git", "cmake"):
        tool = tools / name
        tool.write_text(f"#!/bin/sh\ntouch {tools}/called\nexit 1\n")
        tool.chmod(0o755)
    environment = os.environ | {"OQS_INSTALL_PATH": str(prefix), "PATH": f"{tools}:/usr/bin:/bin"}
    preamble = "import ctypes.util; ctypes.util.find_library = lambda name: None\nfrom hypermesh import falcon\n"
    return subprocess.run(
        [sys.executable, "-c", preamble + code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("content", [None, b"no library at all"])
def test_without_a_library_nothing_is_downloaded(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "lib").mkdir()
        (tmp_path / "lib" / "liboqs.so").write_bytes(content)
    code = "try: falcon.generate()\nexcept falcon.NativeLibraryMissing as e: print(e)"
    ended = in_a_process(code, tmp_path, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "OQS_INSTALL_PATH" in ended.stdout
    assert "make liboqs" in ended.stdout
    assert not (tmp_path / "called").exists()


def test_the_binding_writes_nothing_and_warns_of_nothing(tmp_path: Path) -> None:
    """liboqs-python logs on stdout, where our processes may write data."""
    falcon.native()
    ended = in_a_process("falcon.generate()", Path(os.environ["OQS_INSTALL_PATH"]), tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
