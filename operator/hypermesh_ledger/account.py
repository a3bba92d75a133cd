"""`hypermesh-ledger state`: the ledger's account of who holds what, as JSON, from a pod that may read the trust root.

    trust root (API server) -> Watch of the ledger's service -> one consistent snapshot -> plain dictionaries

For people who compare the ledger with what Kubernetes shows or a kernel holds; nothing in the mesh depends on it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from ipaddress import IPv6Address
from typing import Any

from hypermesh import operations
from hypermesh.resources import ASSET_TYPE_NAMES
from hypermesh.v1 import ledger_pb2
from hypermesh_clients.kube import Kube
from hypermesh_clients.kube_config import ConfigError
from hypermesh_clients.kube_errors import KubeError
from hypermesh_clients.ledger import LedgerClient
from hypermesh_clients.mirror import Mirror
from hypermesh_clients.trust import TrustInvalid, TrustNotPublished, read_trust

PATIENCE_S = 30.0


def add_parser(commands: Any) -> None:
    """The subcommand's options."""
    parser = commands.add_parser("state", help="print assets, reservations and allocations as the ledger holds them")
    parser.add_argument("--ledger", default=os.environ.get("HYPERMESH_LEDGER", "[::1]:7450"), help="host:port")
    parser.add_argument("--namespace", default=os.environ.get("POD_NAMESPACE", "hypermesh-system"))
    parser.add_argument("-o", "--output", choices=["json"], default="json")


def account(mirror: Mirror) -> dict[str, Any]:
    """One block's state. Amounts in base units (millicores, bytes), times in Unix milliseconds, ids in hex."""
    assets = [
        {
            "assetID": record.registration.asset_id.hex(),
            "name": record.registration.name,
            "type": ASSET_TYPE_NAMES[record.registration.type],
            "capacity": record.registration.capacity,
            "reserved": record.reserved,
            "retired": record.retired,
        }
        for record in mirror.assets.values()
    ]
    types = {item["assetID"]: item["type"] for item in assets}
    allocations = []
    for record in mirror.allocations.values():
        allocate = operations.decode(record.envelope).operation.allocate
        allocations.append(
            {
                "allocationID": record.allocation_id.hex(),
                "state": ledger_pb2.AllocationState.Name(record.state).removeprefix("ALLOCATION_STATE_"),
                "namespace": allocate.namespace,
                "name": allocate.name,
                "assetID": allocate.asset_id.hex(),
                "type": types.get(allocate.asset_id.hex(), ""),
                "amount": allocate.amount,
                "address": str(IPv6Address(allocate.address)),
                "expires": record.expires_ms,
                "height": record.height,
            }
        )
    return {
        "chain": mirror.chain_id,
        "height": mirror.height,
        "appHash": mirror.view.app_hash.hex(),
        "epoch": mirror.epoch.number,
        "assets": sorted(assets, key=lambda item: str(item["assetID"])),
        "allocations": sorted(allocations, key=lambda item: str(item["allocationID"])),
    }


def run(options: argparse.Namespace) -> int:
    """Exit status: 0, or 1 after one sentence on stderr."""
    try:
        asyncio.run(show(options))
    except (ConfigError, KubeError, TrustNotPublished, TrustInvalid) as error:
        print(f"hypermesh-ledger state: {error}", file=sys.stderr)  # noqa: T201  # its output
    except TimeoutError:
        text = (
            f"The ledger at {options.ledger} sent no whole copy within {PATIENCE_S:.0f} s: check its pods' readiness."
        )
        print(f"hypermesh-ledger state: {text}", file=sys.stderr)  # noqa: T201  # its output
    else:
        return 0
    return 1


async def show(options: argparse.Namespace) -> None:
    """Prints the account. Raises ConfigError, KubeError, TrustNotPublished, TrustInvalid, TimeoutError."""
    async with Kube.auto() as kube:
        trust = await read_trust(kube, options.namespace, patience=PATIENCE_S)
    client = LedgerClient(options.ledger, trust.ca_pem)
    mirror = Mirror(client)
    following = asyncio.create_task(mirror.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            await mirror.synced.wait()
        print(json.dumps(account(mirror), indent=2))  # noqa: T201  # its output
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await client.close()
