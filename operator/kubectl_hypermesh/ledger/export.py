"""`kubectl hypermesh ledger export`: a proof bundle that shows anybody what the ledger holds, as a file.

    kind and name -> key of the state -> GetProof -> bundle (as `hypermesh-ledger prove` makes it) -> hypermesh-verify

Told whom to trust (--validators or --genesis), it checks the bundle at once, with the verifier that shares no code with
the ledger, and ends with that program's exit status: 0 shown, 1 refused, 3 nobody vouches for the validators.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Sequence
from ipaddress import AddressValueError, IPv6Address
from pathlib import Path
from typing import Any

from hypermesh_ledger import keys
from hypermesh_ledger.exporting import KINDS, bundle
from hypermesh_verify.main import main as verify
from kubectl_hypermesh.ledger.naming import allocation_of, asset_of, node_of
from kubectl_hypermesh.ledger.reach import Reached, reached
from kubectl_hypermesh.ledger.tx import height
from kubectl_hypermesh.options import CommandError, Options

HOW = (
    "Check it anywhere, offline: hypermesh-verify {file} --key {key} --validators HASH\n"
    "HASH is that of the validator set, from somebody you trust: docs/concepts/proof-bundles.md"
)


def add_parser(parts: Any, parents: list[argparse.ArgumentParser]) -> None:
    parser = parts.add_parser("export", parents=parents, help="a proof bundle of what the ledger holds, or does not")
    parser.add_argument("kind", choices=sorted(KINDS), help="what it is about")
    parser.add_argument("id", help="name, address, or id in hex")
    parser.add_argument("-f", "--file", type=Path, help="write to this file instead of standard output")
    told = "of the state (default: the newest that can be proven)"
    parser.add_argument("--height", type=height, default=0, help=told)
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument("--validators", metavar="HEX", help="check it: hash of the validator set that you trust")
    trust.add_argument("--genesis", type=Path, metavar="FILE", help="check it: against the chain's genesis.json")
    parser.set_defaults(run=run)


async def key_of(there: Reached, options: Options, kind: str, text: str) -> bytes:
    """The key of the state. Raises CommandError."""
    if kind == "asset":
        return keys.asset(await asset_of(there, text))
    if kind == "allocation":
        return keys.allocation(await allocation_of(there, options, text))
    if kind == "node":
        return keys.node(await node_of(there, text))
    try:
        return keys.address(IPv6Address(text).packed) if kind == "address" else KINDS[kind](text)
    except (ValueError, AddressValueError) as error:
        wanted = "an IPv6 address" if kind == "address" else "hex digits"
        raise CommandError(f"{text} is not {wanted}") from error


def checking(arguments: argparse.Namespace) -> Sequence[str]:
    """Arguments of hypermesh-verify that say whom to trust; empty when nothing is to be checked."""
    if arguments.validators is not None:
        return ("--validators", arguments.validators)
    return ("--genesis", str(arguments.genesis)) if arguments.genesis is not None else ()


async def run(options: Options, arguments: argparse.Namespace) -> int:
    async with reached(options, arguments) as there:
        key = await key_of(there, options, arguments.kind, arguments.id)
        proof = await there.client.get_proof(key, arguments.height)
    text = json.dumps(bundle(key, proof), indent=1) + "\n"
    if arguments.file is None:
        sys.stdout.write(text)
    else:
        try:
            arguments.file.write_text(text)
        except OSError as error:
            raise CommandError(f"can't write {arguments.file}: {error}") from error
    if not proof.value:
        print(
            f"The ledger holds nothing under this key at height {proof.height}: the bundle shows that.", file=sys.stderr
        )
    trusted = checking(arguments)
    if not trusted:
        print(HOW.format(file=arguments.file or "FILE", key=key.hex()), file=sys.stderr)
        return 0
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file, contextlib.redirect_stdout(sys.stderr):
        file.write(text)
        file.flush()
        return verify([file.name, "--key", key.hex(), *trusted])
