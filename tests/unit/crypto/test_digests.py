"""The project's one hash: known answers, domain separation, and framing that no two inputs share."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypermesh.digests import digest, preimage, u32, u64

DOMAINS = st.text(st.characters(min_codepoint=1, max_codepoint=127), min_size=1, max_size=20)
PARTS = st.lists(st.binary(max_size=40), max_size=5)


def test_layout_is_domain_then_framed_parts() -> None:
    framed = b"hypermesh/asset\0" + bytes(7) + b"\x02ab" + bytes(8)
    assert preimage("asset", b"ab", b"") == framed
    assert digest("asset", b"ab", b"") == hashlib.sha256(framed).digest()


def test_known_answers() -> None:
    """Computed with sha256sum over bytes laid out by hand."""
    assert digest("asset").hex() == "27cfb449b74b0f750abf8aaebe835a6014a1a9e233015253ac6445cbabe9f87f"
    assert digest("operation", b"first", b"").hex() == (
        "4a95ee9d135bf2fef209570ed6dfbc8595baefe6061a3a159e2a9734e5859a04"
    )


@given(DOMAINS, PARTS, DOMAINS, PARTS)
def test_different_inputs_have_different_preimages(
    domain: str, parts: list[bytes], other: str, others: list[bytes]
) -> None:
    assert (preimage(domain, *parts) == preimage(other, *others)) == ((domain, parts) == (other, others))


@given(DOMAINS, st.binary(min_size=1, max_size=40), st.data())
def test_moving_a_border_between_parts_changes_the_digest(domain: str, whole: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(whole)))
    other = data.draw(st.integers(0, len(whole)).filter(lambda at: at != cut))
    assert digest(domain, whole[:cut], whole[cut:]) != digest(domain, whole[:other], whole[other:])


@pytest.mark.parametrize("domain", ["", "a\0b", "größe"])
def test_bad_domains_are_programming_errors(domain: str) -> None:
    with pytest.raises(ValueError, match="digest domain"):
        digest(domain)


def test_integers_are_big_endian_and_bounded() -> None:
    assert (u32(1), u64(258)) == (b"\0\0\0\x01", bytes(6) + b"\x01\x02")
    for too_big in (lambda: u32(1 << 32), lambda: u64(1 << 64), lambda: u32(-1)):
        with pytest.raises(OverflowError):
            too_big()
