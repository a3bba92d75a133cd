"""Proof of time: a Wesolowski VDF in a class group of unknown order (chiavdf), seeded by the node's challenge.

x is the generator form (2, 1, …) of discriminant D = f(c); y = x^(2^iterations) takes that many sequential
squarings, and π lets anybody check y in milliseconds. `TimeProof.output` is y | π, 100 bytes each.

Forms travel compressed (BQFC). chiavdf's verification alone also takes unreduced forms and any tail after the flag
of a special form (identity, generator). Here only the one canonical encoding passes: forms are deserialized
strictly first, and special ones, which no honest y or π is, are refused. So y, and with it the time ticket, is
unique for a challenge.

Source: Wesolowski, "Efficient verifiable delay functions" (2018/623); chiavdf's bqfc.h.
"""

from __future__ import annotations

from hypermesh.proofs.challenges import time_seed
from hypermesh.proofs.refusals import ProofRefused, require_length
from hypermesh.v1 import proofs_pb2

_TIME = proofs_pb2.PROOF_KIND_TIME

FORM_BYTES = 100
GENERATOR = b"\x08" + bytes(FORM_BYTES - 1)
# Bits 2-7 of a form's first byte: special forms (2, 3) and unused.
_SPECIAL = 0xFC


def verify_time(c: bytes, proof: proofs_pb2.TimeProof, params: proofs_pb2.ProofParameters) -> None:
    """Raise ProofRefused unless `proof` shows `params.vdf_iterations` squarings from challenge `c` (32 bytes)."""
    if proof.iterations != params.vdf_iterations:
        raise ProofRefused(
            _TIME, f"time proof of {proof.iterations} iterations: the parameters ask for {params.vdf_iterations}"
        )
    require_length(_TIME, "time proof's output", proof.output, 2 * FORM_BYTES)
    output, witness = proof.output[:FORM_BYTES], proof.output[FORM_BYTES:]
    if (output[0] | witness[0]) & _SPECIAL:
        raise ProofRefused(_TIME, "time proof holds a special form: evaluate the delay function again")

    import chiavdf

    discriminant = chiavdf.create_discriminant(time_seed(c), params.vdf_discriminant_bits)
    try:
        for form in (output, witness):
            chiavdf.bqfc_deserialize(discriminant, form, strict=True)
        valid = chiavdf.verify_wesolowski(discriminant, GENERATOR, output, witness, proof.iterations)
    except (RuntimeError, ValueError) as error:
        raise ProofRefused(_TIME, "time proof's bytes are no forms of the challenge's class group") from error
    if not valid:
        raise ProofRefused(_TIME, "time proof doesn't verify: it answers another node, epoch or beacon, or was damaged")
