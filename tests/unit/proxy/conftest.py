from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # last: it shadows nothing

from proxy_world import World, make_world


@pytest.fixture(scope="session")
def world() -> World:
    return make_world()
