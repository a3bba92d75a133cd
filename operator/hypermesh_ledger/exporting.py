"""`hypermesh-ledger prove`: a bundle that shows anybody what the ledger held under a key, as JSON on standard output.

asset or allocation id, node's key id, IPv6 address -> key of the state -> GetProof -> bundle -> hypermesh-verify
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import sys
from collections.abc import Callable
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, Final

from hypermesh.v1 import ledger_pb2
from hypermesh_clients.kube import Kube
from hypermesh_clients.kube_config import ConfigError
from hypermesh_clients.kube_errors import KubeError
from hypermesh_clients.ledger import LedgerClient, LedgerUnavailable
from hypermesh_clients.trust import TrustInvalid, TrustNotPublished, read_trust
from hypermesh_ledger import keys

PATIENCE_S: Final = 30.0
FORMAT: Final = "hypermesh-proof/1"
ERRORS: Final = (ValueError, RecursionError)
"""What `bundle` raises for an answer that is none."""
KINDS: Final[dict[str, Callable[[str], bytes]]] = {
    "asset": lambda text: keys.asset(bytes.fromhex(text)),
    "allocation": lambda text: keys.allocation(bytes.fromhex(text)),
    "node": lambda text: keys.node(bytes.fromhex(text)),
    "address": lambda text: keys.address(IPv6Address(text).packed),
    "key": bytes.fromhex,
}


def add_parser(commands: Any) -> None:
    """The subcommand's options."""
    parser = commands.add_parser("prove", help="print a proof of what the ledger holds, or that it holds nothing")
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("name", help="id in hex (an address as an address)")
    parser.add_argument("--height", type=int, default=0, help="of the state (default: the newest that can be proven)")
    parser.add_argument("--ledger", default=os.environ.get("HYPERMESH_LEDGER", "[::1]:7450"), help="host:port")
    parser.add_argument("--namespace", default=os.environ.get("POD_NAMESPACE", "hypermesh-system"))
    parser.add_argument("--ca", type=Path, help="PEM that the ledger's certificate is checked by (without Kubernetes)")


def bundle(key: bytes, proof: ledger_pb2.GetProofResponse) -> dict[str, Any]:
    """docs/concepts/proof-bundles.md describes it. Raises ERRORS."""
    absent = not proof.value
    return {
        "format": FORMAT,
        "key": key.hex(),
        "value": None if absent else base64.b64encode(proof.value).decode(),
        "listing": base64.b64encode(proof.listing).decode() if absent else None,
        "height": proof.height,
        "steps": [
            {
                "key": step.key.hex(),
                "total": step.total,
                "index": step.index,
                "aunts": [aunt.hex() for aunt in step.aunts],
            }
            for step in proof.steps
        ],
        "signed_header": json.loads(proof.signed_header),
        "validators": json.loads(proof.validators),
    }


def run(options: argparse.Namespace) -> int:
    """Exit status: 0, or 1 after one sentence on stderr."""
    try:
        key = KINDS[options.kind](options.name)
        print(json.dumps(asyncio.run(_fetch(options, key)), indent=1))  # noqa: T201  # its output
    except (ConfigError, KubeError, TrustNotPublished, TrustInvalid, LedgerUnavailable, *ERRORS, OSError) as error:
        print(f"hypermesh-ledger prove: {error}", file=sys.stderr)  # noqa: T201  # its output
        return 1
    return 0


async def _fetch(options: argparse.Namespace, key: bytes) -> dict[str, Any]:
    if options.ca is None:
        async with Kube.auto() as kube:
            ca_pem = (await read_trust(kube, options.namespace, patience=PATIENCE_S)).ca_pem
    else:
        ca_pem = options.ca.read_bytes()
    client = LedgerClient(options.ledger, ca_pem)
    try:
        return bundle(key, await client.get_proof(key, options.height, PATIENCE_S))
    finally:
        await client.close()
