"""One real plot of one node, and small work parameters, for all proof tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypermesh.proofs import challenge
from hypermesh.proofs.parameters import DEMO
from hypermesh.v1.proofs_pb2 import ProofParameters, SpaceProof
from hypermesh_agent.proofs import plots

K = 18


@pytest.fixture(scope="session")
def node() -> bytes:
    return bytes(range(32))


@pytest.fixture(scope="session")
def asked(node: bytes) -> bytes:
    return challenge("test-chain", b"beacon", node, 7)


@pytest.fixture(scope="session")
def plot_dir(tmp_path_factory: pytest.TempPathFactory, node: bytes) -> Path:
    """A directory with the finished plot of `node`; tests that damage it work on a copy."""
    directory = tmp_path_factory.mktemp("plots")
    assert plots.ensure(directory, node, K)
    return directory


@pytest.fixture(scope="session")
def whole_space_proof(plot_dir: Path, node: bytes, asked: bytes) -> SpaceProof:
    return plots.answer(plot_dir, node, K, asked, DEMO)


@pytest.fixture
def space_proof(whole_space_proof: SpaceProof) -> SpaceProof:
    """A fresh copy, to be changed at will."""
    copy = SpaceProof()
    copy.CopyFrom(whole_space_proof)
    return copy


@pytest.fixture(scope="session")
def small() -> ProofParameters:
    """DEMO, with work and delay so small that a test can compute them a second way."""
    params = ProofParameters()
    params.CopyFrom(DEMO)
    params.work_n, params.work_tile, params.work_rounds, params.work_samples = 64, 8, 3, 12
    params.vdf_iterations = 1000
    return params
