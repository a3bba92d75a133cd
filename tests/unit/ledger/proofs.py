"""Real proofs for a world's node, made in this process: plot, work on the CPU, delay function."""

from __future__ import annotations

from pathlib import Path

from hypermesh.operations import canonical
from hypermesh.proofs import challenge, products
from hypermesh.proofs.parameters import DEMO
from hypermesh.v1 import ledger_pb2, proofs_pb2
from hypermesh_agent.proofs import plots, worker
from hypermesh_ledger import keys
from hypermesh_ledger.execution.context import read

from ...builders import Member
from .world import CHAIN, World


def small() -> proofs_pb2.ProofParameters:
    """The least work and delay that the ledger's genesis takes."""
    params = proofs_pb2.ProofParameters()
    params.CopyFrom(DEMO)
    params.work_n, params.work_tile, params.work_rounds, params.work_samples = 64, 8, 3, 12
    params.vdf_iterations = 1_000
    return params


def asked(world: World, node: Member) -> bytes:
    """The challenge of now."""
    return challenge(CHAIN, world.epoch.beacon, node.key_id, world.epoch.number)


def commitment(world: World, node: Member, *devices: bytes) -> ledger_pb2.CommitWork:
    """The work of now, really done."""
    c, params, multiply = asked(world, node), world.genesis.proofs, products.multiply_numpy
    roots = [(device, products.commit(c, device, params, multiply)) for device in devices]
    commitments = [proofs_pb2.WorkCommitment(device=device, root=root) for device, root in roots]
    return ledger_pb2.CommitWork(epoch=world.epoch.number, commitments=commitments)


def seed_of(world: World, node: Member) -> ledger_pb2.WorkSeed:
    """What the ledger answered to the commitment."""
    seed = read(world.state, keys.seed(node.key_id), ledger_pb2.WorkSeed)
    assert seed is not None
    return seed


def proof(world: World, node: Member, plot: Path) -> ledger_pb2.Prove:
    """All that the seed asks for; plot is a directory."""
    c, params, seed = asked(world, node), world.genesis.proofs, seed_of(world, node)
    plots.ensure(plot, node.key_id, params.space_min_k)
    work = [
        products.open_work(c, each.device, seed.seed, each.root, params, products.multiply_numpy)
        for each in seed.commitments
    ]
    delay = worker.time({"c": c.hex(), "params": canonical(params).hex()})
    return ledger_pb2.Prove(
        epoch=world.epoch.number,
        space=plots.answer(plot, node.key_id, params.space_min_k, c, params),
        work=work,
        time=proofs_pb2.TimeProof.FromString(bytes.fromhex(delay)),
    )
