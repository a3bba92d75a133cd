"""Private keys wrapped in their Secrets: under a file's key, at the first start or later, and never lost over it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from hypermesh import keyfile
from hypermesh_clients.key_encryption import VARIABLE, KeyEncryptionUnusable, Wrapping, fill_wrapped
from hypermesh_clients.kube_resources import SECRETS
from hypermesh_clients.kube_secrets import contents, encoded
from hypermesh_operator import identity
from hypermesh_trustchain.root_store import RootStore
from hypermesh_trustchain.roots import PRIVATE, SECRET, TLS_CERTIFICATE

MATERIAL = bytes(range(32))
OPERATOR = Wrapping("hypermesh-operator-key", (identity.FALCON_KEY, identity.TOKEN_KEY), MATERIAL)


async def stored(install: Any, name: str = SECRET) -> dict[str, bytes]:
    return contents(await install.kube.get(SECRETS, name, install.namespace))


async def wrapped(install: Any) -> set[bool]:
    """Whether the root's private keys rest wrapped; one answer unless they differ."""
    resting = await stored(install)
    return {keyfile.is_wrapped(resting[name]) for name in PRIVATE}


@pytest.mark.parametrize("from_the_start", [True, False])
async def test_the_root_rests_wrapped_and_opens_with_the_file_alone(bare: Any, from_the_start: bool) -> None:
    wrapping = Wrapping(SECRET, PRIVATE, MATERIAL)
    first = await RootStore(bare.kube, bare.namespace, wrapping if from_the_start else None).open()
    assert await wrapped(bare) == {from_the_start}
    store = RootStore(bare.kube, bare.namespace, wrapping)
    assert (await store.open()).encode() == first.encode()
    assert await wrapped(bare) == {True}
    resting = await stored(bare)
    assert first.falcon.secret not in b"".join(resting.values())
    assert resting[TLS_CERTIFICATE] == first.encode()[TLS_CERTIFICATE]

    await store.enrol(bytes(32), "node-1", 2_000_000_000, 1_900_000_000)
    assert await wrapped(bare) == {True}
    for other, problem in ((None, "give the key encryption file"), (bytes(32), "doesn't open")):
        with pytest.raises(KeyEncryptionUnusable, match=problem):
            await RootStore(bare.kube, bare.namespace, Wrapping(SECRET, PRIVATE, other)).open()
    after = await stored(bare)
    assert {name: after[name] for name in resting} == resting, "neither an enrolment nor a wrong file touches the keys"


async def test_the_process_takes_the_file_and_ends_without_it(
    bare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kek"
    file.write_bytes(MATERIAL)
    monkeypatch.setenv(VARIABLE, str(file))
    await bare.spawn()
    await bare.ready()
    assert await wrapped(bare) == {True}
    bare.kill()
    monkeypatch.delenv(VARIABLE)
    process = await bare.spawn()
    for _ in range(600):
        if process.poll() is not None:
            break
        await asyncio.sleep(0.05)
    assert process.poll() == 1
    assert "give the key encryption file" in bare.log()[-1]["message"]


async def test_the_operators_keys_too(bare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made bare before the file was given; the same keys afterwards."""
    monkeypatch.delenv(VARIABLE, raising=False)
    before = await identity.load(bare.kube, bare.namespace)
    file = tmp_path / "kek"
    file.write_bytes(MATERIAL)
    monkeypatch.setenv(VARIABLE, str(file))
    for _ in range(2):
        assert await identity.load(bare.kube, bare.namespace) == before
        resting = await stored(bare, OPERATOR.secret)
        assert sorted(name for name, value in resting.items() if keyfile.is_wrapped(value)) == sorted(OPERATOR.entries)


async def test_an_entry_put_in_anothers_place_does_not_open(bare: Any) -> None:
    await fill_wrapped(bare.kube, bare.namespace, OPERATOR, "token.key", lambda: {"token.key": b"t" * 32})
    resting = await stored(bare, OPERATOR.secret)
    with pytest.raises(KeyEncryptionUnusable, match=r"falcon\.key doesn't open"):
        OPERATOR.open({"falcon.key": resting["token.key"]})


async def test_a_wrong_file_wraps_nothing_beside_what_the_right_one_wrapped(bare: Any) -> None:
    """One entry wrapped, one bare, as when somebody restores half a backup: else neither file would open both."""
    keys = {name: name.encode() * 4 for name in OPERATOR.entries}
    first = OPERATOR.entries[0]
    mixed = keys | {first: OPERATOR.close(keys)[first]}
    await bare.kube.merge_patch(SECRETS, OPERATOR.secret, {"data": encoded(mixed)}, bare.namespace)
    before = await stored(bare, OPERATOR.secret)
    wrong = Wrapping(OPERATOR.secret, OPERATOR.entries, bytes(32))
    with pytest.raises(KeyEncryptionUnusable, match="doesn't open"):
        await fill_wrapped(bare.kube, bare.namespace, wrong, first, dict)
    assert await stored(bare, OPERATOR.secret) == before
    assert await fill_wrapped(bare.kube, bare.namespace, OPERATOR, first, dict) == before | keys
    assert OPERATOR.bare(await stored(bare, OPERATOR.secret)) is False


def test_a_file_that_is_missing_or_short_is_named(tmp_path: Path) -> None:
    file = tmp_path / "kek"
    with pytest.raises(KeyEncryptionUnusable, match="kek"):
        Wrapping.of(SECRET, PRIVATE, {VARIABLE: str(file)})
    file.write_bytes(b"short")
    with pytest.raises(KeyEncryptionUnusable, match="32 random ones"):
        Wrapping.of(SECRET, PRIVATE, {VARIABLE: str(file)})
    assert MATERIAL.hex() not in repr(Wrapping(SECRET, PRIVATE, MATERIAL))
    assert repr(MATERIAL) not in repr(Wrapping(SECRET, PRIVATE, MATERIAL))
