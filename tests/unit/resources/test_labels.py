"""A node's name as a label: itself where it fits, else short, valid and still its own."""

from __future__ import annotations

import re

import pytest

from hypermesh.resources import node_label

VALUE = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")  # of what a label takes, what a node's name can have


@pytest.mark.parametrize("name", ["n", "node-1.example.org", "n" * 63])
def test_a_name_that_fits_is_its_own_label(name: str) -> None:
    assert node_label(name) == name


@pytest.mark.parametrize("name", ["n" * 64, "n" * 253, f"{'n' * 51}-{'a' * 20}", f"{'n' * 50}.-.{'a' * 20}"])
def test_a_longer_one_is_cut_to_a_valid_value(name: str) -> None:
    label = node_label(name)
    assert len(label) <= 63
    assert VALUE.fullmatch(label)


def test_names_that_begin_alike_stay_apart() -> None:
    assert len({node_label(f"{'n' * 80}{number}") for number in range(100)}) == 100
