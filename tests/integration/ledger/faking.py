"""A prover that computes all but one number of each round, and opens what it computed: its own program, not ours.

Sampled openings let it pass nearly always, as docs/concepts/proofs.md says: it fakes one tile of 16,384 in each round.
"""

from __future__ import annotations

import asyncio

from hypermesh.proofs import products
from hypermesh.v1 import proofs_pb2
from hypermesh_agent.proofs import Prover, WorkDevice


def faked(left: products.Int8, right: products.Int8) -> products.Int32:
    """The product, with one wrong number."""
    product = products.multiply_numpy(left, right)
    product[0, 0] += 1
    return product


class Faker(Prover):
    """Honest in space and time."""

    async def _commit(self, c: bytes, device: WorkDevice, params: proofs_pb2.ProofParameters) -> bytes:
        return await asyncio.to_thread(products.commit, c, device.asset, params, faked)

    async def _open(
        self, c: bytes, device: WorkDevice, seed: bytes, root: bytes, params: proofs_pb2.ProofParameters
    ) -> proofs_pb2.WorkProof:
        return await asyncio.to_thread(products.open_work, c, device.asset, seed, root, params, faked)
