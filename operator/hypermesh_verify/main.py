"""`hypermesh-verify BUNDLE`: does a bundle of the ledger show what it says? Offline, and without the ledger's code.

Exit status: 0 shown; 1 refused; 2 usage; 3 consistent, but nobody vouches for the validator set of that height.
The genesis does not say it: a founder, also one that has left since, can sign any header with the set of the genesis.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypermesh_verify.bundles import BundleRefused, check, validators_hash

OF_GENESIS = (
    "the validators are those of the genesis, which holds only if they never changed since: "
    "whoever founded the chain can sign anything with that set. "
)
REMEDY = "Compare the validators' hash with one that you trust for this height, and give it by --validators."


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="hypermesh-verify", description="Check a proof bundle of the ledger, offline."
    )
    parser.add_argument("bundle", help="file that `hypermesh-ledger prove` wrote, - for standard input")
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument(
        "--validators",
        type=bytes.fromhex,
        metavar="HEX",
        help="hash of the validator set of that height, from somebody you trust: without it nothing is shown (exit 3)",
    )
    trust.add_argument(
        "--genesis",
        type=Path,
        metavar="FILE",
        help="the chain's genesis.json: refuse any other set; holds only if the validators never changed (exit 3)",
    )
    parser.add_argument("--key", type=bytes.fromhex, metavar="HEX", help="refuse a bundle of any other key")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    options = parse(argv)
    try:
        text = sys.stdin.read() if options.bundle == "-" else Path(options.bundle).read_text()
        shown = check(json.loads(text))
        if options.key is not None and shown.key != options.key:
            raise BundleRefused(f"it is of key {shown.key.hex()}")
        expected = _genesis(options.genesis, shown.chain_id) if options.genesis else options.validators
        if expected is not None and expected != shown.validators_hash:
            whose = "of the genesis" if options.genesis else "you trust"
            raise BundleRefused(f"its validators are not those {whose} (theirs: {shown.validators_hash.hex()})")
    except (BundleRefused, OSError, ValueError, RecursionError) as error:
        print(f"REFUSED: {error}")
        return 1
    name, _, rest = shown.key.partition(b"/")
    print(f"chain       {shown.chain_id}")
    print(f"height      {shown.height} (signed by block {shown.height + 1} at {shown.time})")
    print(f"key         {name.decode('ascii', 'backslashreplace')}/{rest.hex()} ({shown.key.hex()})")
    print(f"value       {'absent' if shown.value is None else shown.value.hex()}")
    print(f"validators  {shown.validators_hash.hex()}")
    if options.validators is None:
        print(f"UNVOUCHED: {OF_GENESIS if options.genesis else ''}{REMEDY}")
        return 3
    print("SHOWN")
    return 0


def _genesis(path: Path, chain_id: str) -> bytes:
    """Hash of the genesis's validators, in CometBFT's order. Raises BundleRefused, OSError, ValueError."""
    try:
        document: dict[str, Any] = json.loads(path.read_text())
        if document["chain_id"] != chain_id:
            raise BundleRefused(f"it is of chain {chain_id}, the genesis of {document['chain_id']}")
        found = [{"pub_key": each["pub_key"], "voting_power": each["power"]} for each in document["validators"]]
        order = [(-int(each["power"]), each["address"]) for each in document["validators"]]
    except (KeyError, TypeError) as error:
        raise BundleRefused(f"{path} is no genesis file of CometBFT: {error!r}") from error
    return validators_hash(
        [validator for _, validator in sorted(zip(order, found, strict=True), key=lambda pair: pair[0])]
    )


if __name__ == "__main__":
    sys.exit(main())
