"""Roots and worlds; a root costs a Falcon key, so one serves all tests."""

from __future__ import annotations

import pytest

from ...builders import TrustRoot
from .world import Settled, World


@pytest.fixture(scope="session")
def root() -> TrustRoot:
    return TrustRoot()


@pytest.fixture
def world(root: TrustRoot) -> World:
    return World(root)


@pytest.fixture
def settled(root: TrustRoot) -> Settled:
    return Settled(root)
