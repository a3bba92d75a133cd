"""Every fuzz target, briefly: what it must accept, the findings of the past, and some hundred mutations of each.

`make fuzz` runs the same targets under a coverage-guided fuzzer for as long as FUZZ_SECONDS says.
"""

from __future__ import annotations

import os
import random

import pytest

from hypermesh import addressing, certificates, operations
from hypermesh.v1 import trust_pb2

from ...fuzz import gossip_targets
from ...fuzz.mutators import mutated
from ...fuzz.seeds import seeds
from ...fuzz.targets import TARGETS

ROUNDS = {"proofs": 60, "abci_query": 60}
"""Verifying garbage costs milliseconds there."""


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_inputs_find_nothing(name: str) -> None:
    seed = int(os.environ.get("FUZZ_SEED") or random.randrange(1 << 32))
    print(f"FUZZ_SEED={seed}")
    chance, begin = random.Random(seed), seeds(name)
    for data in [*begin, b"", *(mutated(chance.choice(begin), begin, chance) for _ in range(ROUNDS.get(name, 600)))]:
        try:
            TARGETS[name](data)
        except Exception as error:
            raise AssertionError(f"{name} found {error!r} in {data[:2000].hex()}") from error


def test_the_first_inputs_are_accepted_where_anything_is() -> None:
    """Fuzzing from what is refused at the first byte would try nothing."""
    kinds = {operations.decode(each).kind for each in seeds("operation")}
    assert kinds == {"enrol_node", "prove", "prove_memory", "register_asset", "allocate", "release"}
    outer = trust_pb2.Certificate.FromString(seeds("certificate")[0])
    assert certificates.decode(outer).subject == "node-1"
    assert addressing.parse(seeds("address")[0]).address.packed == seeds("address")[0]
    together, *each = seeds("pending")
    TARGETS["pending"](together)
    assert len(gossip_targets.world().core.pool) == len(each)
