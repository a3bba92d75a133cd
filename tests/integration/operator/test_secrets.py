"""Somebody deletes or spoils a tenant's access Secret: it is written again, or the status says why not."""

from __future__ import annotations

import asyncio
import base64
import os

import pytest

from hypermesh_clients.kube import NotFound, Object
from hypermesh_clients.kube_resources import EVENTS, SECRETS
from hypermesh_operator import identity

from ..operator_fixture import LIMIT_S, SYSTEM, TENANT, Mesh

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("tidy")]

ONE_GI = {"type": "memory", "resources": {"memory": "1Gi"}}


async def until_data(mesh: Mesh, name: str, wanted: Object) -> None:
    """Returns when the Secret holds exactly that."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                if (await mesh.kube.get(SECRETS, name, TENANT))["data"] == wanted:
                    return
            except NotFound:
                pass
            await asyncio.sleep(0.1)


async def test_a_deleted_or_spoilt_secret_comes_back_with_the_same_token(mesh: Mesh) -> None:
    async with mesh.operator(), mesh.reporting():
        uid = (await mesh.apply("kept", ONE_GI))["metadata"]["uid"]
        await mesh.until("kept", "Ready")
        wanted = (await mesh.kube.get(SECRETS, "kept-access", TENANT))["data"]
        await mesh.kube.delete(SECRETS, "kept-access", TENANT)
        await until_data(mesh, "kept-access", wanted)
        async with asyncio.timeout(LIMIT_S):
            while True:
                events = [item for item in await mesh.kube.list(EVENTS, TENANT) if item["regarding"].get("uid") == uid]
                if told := [item["note"] for item in events if item["reason"] == "AccessSecretRestored"]:
                    break
                await asyncio.sleep(0.1)
        assert told == ["Secret kept-access was gone: it is written again, with the same token."]
        spoilt = {"data": {"token": base64.b64encode(b"spoilt").decode()}}
        await mesh.kube.merge_patch(SECRETS, "kept-access", spoilt, TENANT, field_manager="somebody")
        await until_data(mesh, "kept-access", wanted)


async def test_what_was_deleted_while_no_operator_ran_comes_back(mesh: Mesh) -> None:
    async with mesh.operator(), mesh.reporting():
        await mesh.apply("later", ONE_GI)
        await mesh.until("later", "Ready")
        wanted = (await mesh.kube.get(SECRETS, "later-access", TENANT))["data"]
    await mesh.kube.delete(SECRETS, "later-access", TENANT)
    async with mesh.operator():
        await until_data(mesh, "later-access", wanted)


async def test_a_token_of_another_key_is_left_alone_and_its_loss_is_told(mesh: Mesh) -> None:
    async with mesh.operator(), mesh.reporting():
        await mesh.apply("other", ONE_GI)
        await mesh.until("other", "Ready")
    wanted = (await mesh.kube.get(SECRETS, "other-access", TENANT))["data"]
    key = (await mesh.kube.get(SECRETS, identity.SECRET, SYSTEM))["data"][identity.TOKEN_KEY]
    replaced = base64.b64encode(os.urandom(32)).decode()
    await mesh.kube.merge_patch(SECRETS, identity.SECRET, {"data": {identity.TOKEN_KEY: replaced}}, SYSTEM)
    try:
        async with mesh.operator():
            await asyncio.sleep(5)  # two sweeps
            assert (await mesh.kube.get(SECRETS, "other-access", TENANT))["data"] == wanted
            await mesh.until("other", "Ready")
            await mesh.kube.delete(SECRETS, "other-access", TENANT)
            status = await mesh.until("other", "Ready", "TokenKeyChanged", status="False")
            message = next(item["message"] for item in status["conditions"] if item["type"] == "Ready")
            assert "Restore that key in Secret hypermesh-operator-key" in message
    finally:
        await mesh.kube.merge_patch(SECRETS, identity.SECRET, {"data": {identity.TOKEN_KEY: key}}, SYSTEM)
    async with mesh.operator():
        await until_data(mesh, "other-access", wanted)
        await mesh.until("other", "Ready")
