"""`kubectl hypermesh ledger status|validators|tx|proofs|export`: look into the ledger, from outside its pods."""

from __future__ import annotations

import argparse
from typing import Any

from kubectl_hypermesh.ledger import export, proofs, reach, status, tx, validators

PARTS = (status, validators, tx, proofs, export)


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("ledger", help="the chain, its validators, transactions and proofs")
    metavar = "|".join(part.__name__.rpartition(".")[2] for part in PARTS)
    parts = parser.add_subparsers(dest="part", metavar=metavar, required=True)
    for part in PARTS:
        part.add_parser(parts, [common, reach.flags()])
