"""Published trust: its parts must agree."""

from __future__ import annotations

import base64
import datetime

import pytest

from hypermesh import falcon
from hypermesh_clients.trust import Trust, TrustInvalid
from hypermesh_trustchain.roots import CLUSTER, generate

ROOT = generate("hypermesh-system", datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC))
TRUST = Trust(ROOT.falcon.public, ROOT.ca_pem, ROOT.federation, CLUSTER, ROOT.prefix, "uid")


def test_round_trip() -> None:
    assert Trust.decode(TRUST.encode()) == TRUST


@pytest.mark.parametrize("missing", sorted(TRUST.encode()))
def test_every_key_is_needed(missing: str) -> None:
    data = TRUST.encode()
    del data[missing]
    with pytest.raises(TrustInvalid, match=missing):
        Trust.decode(data)


@pytest.mark.parametrize(
    "change",
    [
        {"root.pub": base64.b64encode(falcon.generate().public).decode()},
        {"root.pub": "AAAA"},
        {"root.pub": "!"},
        {"federation": "0011223344"},
        {"federation": "zz"},
        {"cluster": "2"},
        {"cluster": "70000"},
        {"cluster": "one"},
        {"prefix": "fd00::/64"},
        {"prefix": "everywhere"},
    ],
    ids=lambda change: "-".join(f"{key}={value[:10]}" for key, value in change.items()),
)
def test_contradictions(change: dict[str, str]) -> None:
    with pytest.raises(TrustInvalid, match="hypermesh-trust"):
        Trust.decode({**TRUST.encode(), **change})
