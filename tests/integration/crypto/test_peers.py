"""FALCON-1024 against another implementation, both ways, and its hundred known answers.

The peer is the Rust crate fn-dsa in its round-3 mode: other key generation, other encoding and decoding, other
arithmetic than the PQClean code inside liboqs. (unit/crypto has vectors of a third, @noble/post-quantum in JavaScript.)
"""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import hypermesh_native
from hypermesh import falcon
from hypermesh.digests import digest

from ...known_answers import PrivateLibrary, falcon_answers

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[2]
ROUNDS = 20


class Peer:
    """The peer's process: one line in, one line out."""

    def __init__(self, program: Path) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([program], stdin=pipe, stdout=pipe, text=True, bufsize=1)

    def ask(self, *words: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def generate(self) -> falcon.KeyPair:
        secret, public = self.ask("generate").split(" ")
        return falcon.KeyPair(bytes.fromhex(public), bytes.fromhex(secret))

    def sign(self, secret: bytes, message: bytes) -> bytes:
        return bytes.fromhex(self.ask("sign", secret.hex(), message.hex()))

    def verify(self, public: bytes, message: bytes, signature: bytes) -> bool:
        return {"true": True, "false": False}[self.ask("verify", public.hex(), message.hex(), signature.hex())]


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    """Built from its pinned sources (half a minute, once a checkout)."""
    target = CHECKOUT / "build" / "falcon-peer"
    subprocess.run(
        ["cargo", "build", "--quiet", "--release", "--locked", "--jobs", "2"],
        cwd=HERE / "falcon_peer",
        env=os.environ | {"CARGO_TARGET_DIR": str(target)},
        check=True,
        timeout=600,
    )
    running = Peer(target / "release" / "falcon-peer")
    yield running
    assert running.process.stdin is not None
    running.process.stdin.close()
    assert running.process.wait(10) == 0


@pytest.fixture(scope="module")
def ours() -> falcon.KeyPair:
    return falcon.generate()


@pytest.fixture(scope="module")
def theirs(peer: Peer) -> falcon.KeyPair:
    return peer.generate()


def test_what_we_sign_the_peer_verifies(peer: Peer, ours: falcon.KeyPair) -> None:
    for size in range(ROUNDS):
        part = secrets.token_bytes(size)
        signature, message = falcon.sign(ours.secret, "operation", part), digest("operation", part)
        assert peer.verify(ours.public, message, signature)
        assert not peer.verify(ours.public, message[::-1], signature)


def test_what_the_peer_signs_we_verify(peer: Peer, theirs: falcon.KeyPair) -> None:
    for size in range(ROUNDS):
        part = secrets.token_bytes(size)
        signature = peer.sign(theirs.secret, digest("operation", part))
        assert falcon.verify(theirs.public, signature, "operation", part)
        assert not falcon.verify(theirs.public, signature, "certificate", part)


def test_keys_of_each_serve_the_other(peer: Peer, ours: falcon.KeyPair, theirs: falcon.KeyPair) -> None:
    """The secret key's encoding is the same, and each derives the same public key from it."""
    message = digest("operation", b"x")
    assert falcon.verify(ours.public, peer.sign(ours.secret, message), "operation", b"x")
    assert peer.verify(theirs.public, message, falcon.sign(theirs.secret, "operation", b"x"))
    assert falcon.KeyPair.decode(theirs.encode()) == theirs


def test_both_refuse_the_same_forgeries(peer: Peer, ours: falcon.KeyPair) -> None:
    """Bits, zero paddings, headers of other formats, cuts: never does one accept what the other refuses."""
    message = digest("operation", b"x")
    signature = falcon.sign(ours.secret, "operation", b"x")
    cases = [signature]
    for bit in [*range(16), *(secrets.randbelow(len(signature) * 8) for _ in range(200)), len(signature) * 8 - 1]:
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        cases.append(bytes(changed))
    cases += [bytes([header]) + signature[1:] for header in range(256) if header != signature[0]]
    cases += [signature[:-1], signature + b"\0", bytes(len(signature)), signature[:41] + bytes(1239)]
    verdicts = [
        (peer.verify(ours.public, message, case), falcon.verify(ours.public, case, "operation", b"x")) for case in cases
    ]
    assert verdicts == [(True, True)] + [(False, False)] * (len(cases) - 1)


def test_all_hundred_known_answers_of_falcon(tmp_path: Path) -> None:
    """SHA-256 of the whole response file, from liboqs 0.13.0 tests/KATs/sig/kats.json ("all")."""
    text = falcon_answers(PrivateLibrary(tmp_path), "OQS_SIG_falcon_padded_1024", 1793, 2305, 100)
    digest_of_all = hashlib.sha256(text.encode()).hexdigest()
    assert digest_of_all == "907a4931ddc2ce8360478a45f1bffededd6a04015b00233ecd851a62ecba06c1"


def test_all_hundred_known_answers_of_unpadded_falcon(tmp_path: Path) -> None:
    """The same keys and nonces in the submission's own format."""
    text = falcon_answers(PrivateLibrary(tmp_path), "OQS_SIG_falcon_1024", 1793, 2305, 100)
    digest_of_all = hashlib.sha256(text.encode()).hexdigest()
    assert digest_of_all == "46f9682ebf6fd31bae60c3191ed1a6c56aa09fb4945a266f86732a90c6c4db67"


def test_the_ledgers_verifier_knows_all_hundred_answers(tmp_path: Path) -> None:
    text = falcon_answers(PrivateLibrary(tmp_path), "OQS_SIG_falcon_padded_1024", 1793, 2305, 100)
    lines = [line.partition(" = ") for line in text.splitlines()]
    messages, keys, signed = (
        [bytes.fromhex(rest) for name, _, rest in lines if name == one] for one in ("msg", "pk", "sm")
    )
    assert len(signed) == 100
    for message, key, both in zip(messages, keys, signed, strict=True):
        signature = both.removesuffix(message)
        assert len(signature) == falcon.SIGNATURE_BYTES
        assert hypermesh_native.verify(key, signature, message)
        assert not hypermesh_native.verify(key, signature, message[:-1])
