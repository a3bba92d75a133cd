"""The cluster's half of the agents' wrapping key: filled by TrustChain once, waited for by agents, never replaced."""

from __future__ import annotations

import asyncio
import base64
import logging
from typing import Any

import pytest

from hypermesh import keyfile
from hypermesh_agent.enrolling import _cluster_half
from hypermesh_agent.identity import IdentityError
from hypermesh_clients.kube_resources import SECRETS
from hypermesh_clients.trust import KEK_ENTRY, KEK_SECRET


async def stored(install: Any) -> bytes:
    secret = await install.kube.get(SECRETS, KEK_SECRET, install.namespace)
    return base64.b64decode((secret.get("data") or {}).get(KEK_ENTRY, ""))


async def test_agents_wait_until_trustchain_has_filled_it(bare: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert await stored(bare) == b""
    waiting = asyncio.create_task(_cluster_half(bare.kube, bare.namespace))
    done, _ = await asyncio.wait({waiting}, timeout=1)
    assert not done
    assert [line for line in caplog.messages if f"{KEK_SECRET} is still empty; TrustChain fills it" in line]
    await bare.spawn()
    await bare.ready()
    half = await asyncio.wait_for(waiting, 30)
    assert len(half) == keyfile.SECRET_BYTES
    assert half == await stored(bare)


async def test_a_restart_keeps_it(bare: Any) -> None:
    await bare.spawn()
    await bare.ready()
    half = await stored(bare)
    bare.kill()
    await bare.spawn()
    await bare.ready()
    assert await stored(bare) == half


async def test_one_that_is_no_key_is_told_and_not_waited_for(bare: Any) -> None:
    patch = {"data": {KEK_ENTRY: base64.b64encode(b"short").decode()}}
    await bare.kube.merge_patch(SECRETS, KEK_SECRET, patch, bare.namespace)
    with pytest.raises(IdentityError, match="restore it from a backup"):
        await asyncio.wait_for(_cluster_half(bare.kube, bare.namespace), 30)
