"""The native verifiers survive garbage: a crash of chiapos or chiavdf would end a validator, so none may happen.

Each batch runs in a process of its own: an abort or a division by zero in native code shows as its exit status,
not as the end of the test run.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

PREAMBLE = """
import random, sys
from hypermesh.proofs import ProofRefused, verify_space, verify_time
from hypermesh.proofs.parameters import DEMO
from hypermesh.v1.proofs_pb2 import SpaceAnswer, SpaceProof, TimeProof
r = random.Random(int(sys.argv[1]))
refused = 0
def piece(size):
    kind = r.randrange(5)
    if kind == 0: return r.randbytes(size)
    if kind == 1: return bytes([r.choice((0, 1, 127, 128, 255))]) * size
    return bytes(r.choice((0, 0, 1, 255, r.randrange(256))) for _ in range(size))
"""

SPACE = """
for _ in range(500):
    k = r.randrange(18, 41)
    answers = [SpaceAnswer(index=i, proof=piece(k * 8)) for i in range(8)]
    try: verify_space(r.randbytes(32), piece(32), SpaceProof(k=k, answers=answers), DEMO)
    except ProofRefused: refused += 1
print(refused)
"""

TIME = """
def form(): return bytes([r.randrange(4), r.choice((0, 0, 1, 2, 31, 32, 255))]) + piece(98)
for _ in range(100):
    try: verify_time(piece(32), TimeProof(iterations=DEMO.vdf_iterations, output=form() + form()), DEMO)
    except ProofRefused: refused += 1
print(refused)
"""

# Deserialization and verification below our checks, many more times: one discriminant, a real proof's halves.
FORMS = """
import chiavdf
from hypermesh.proofs import delay
d = chiavdf.create_discriminant(b"seed", 1024)
out = chiavdf.prove(b"seed", delay.GENERATOR, 1024, 1000, "")
def form():
    if r.randrange(3):
        return bytes([r.randrange(256), r.choice((0, 0, 1, 2, 31, 32, 255))]) + piece(98)
    half = bytearray(out[:100] if r.randrange(2) else out[100:])
    for _ in range(r.randrange(1, 4)): half[r.randrange(100)] ^= 1 << r.randrange(8)
    return bytes(half)
for _ in range(2000):
    one, two = form(), form()
    for call in (lambda: chiavdf.bqfc_deserialize(d, one, strict=True),
                 lambda: chiavdf.verify_wesolowski(d, delay.GENERATOR, one, two, 1000),
                 lambda: chiavdf.verify_wesolowski(d, delay.GENERATOR, out[:100], two, 1000)):
        try: call()
        except (RuntimeError, ValueError): refused += 1
print("survived")
"""


@pytest.mark.parametrize("seed", ["1", "2"])
@pytest.mark.parametrize(("code", "printed"), [(SPACE, "500"), (TIME, "100"), (FORMS, "survived")])
def test_garbage_never_ends_the_process(code: str, printed: str, seed: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PREAMBLE + code, seed], capture_output=True, text=True, timeout=300, check=False
    )
    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, printed, "")
