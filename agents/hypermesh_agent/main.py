"""`hypermesh-agent`: `run` is the node's agent; `probe` prints what this machine has, without any cluster.

`delegate`, `revoke`, `share` and `release` are a person's words to the ledger, with the node's key.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Sequence

from .config import ConfigError, add_desk_parsers, add_run_flags, add_survey_flags, agent_config, survey_config
from .hardware import Inventory
from .survey import Survey


def parser() -> argparse.ArgumentParser:
    """The command line; `--help` needs nothing but Python."""
    program = argparse.ArgumentParser(prog="hypermesh-agent", description="Gives this node's hardware to HyperMesh.")
    commands = program.add_subparsers(dest="command", metavar="COMMAND")
    run = commands.add_parser("run", help="publish, prove and serve this node's hardware (needs root and a cluster)")
    add_run_flags(run)
    add_survey_flags(run)
    probe = commands.add_parser("probe", help="print this machine's hardware and end")
    add_survey_flags(probe)
    probe.add_argument("-o", "--output", choices=["table", "json"], default="table", help="default: table")
    add_desk_parsers(commands)
    return program


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 fine, 1 a probe failed or the agent ended by an error, 2 wrong use."""
    program = parser()
    parsed = program.parse_args(arguments)
    try:
        if parsed.command == "probe":
            return _probe(parsed)
        if parsed.command == "run":
            return _run(parsed)
        if parsed.command is not None:
            from . import delegating  # only here, as in _run

            return delegating.run(parsed)
    except ConfigError as error:
        program.error(str(error))
    program.print_help(sys.stderr)
    return 2


def _probe(parsed: argparse.Namespace) -> int:
    inventory = asyncio.run(Survey(survey_config(parsed)).run())
    if parsed.output == "json":
        json.dump(inventory_json(inventory), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        sys.stdout.write(inventory_table(inventory))
    return 1 if inventory.failures else 0


def _run(parsed: argparse.Namespace) -> int:
    config = agent_config(parsed)
    # Only here: `probe` and `--help` do without the clients' libraries.
    from hypermesh_clients.serving import run_until_signal, setup_logging

    from .agent import run
    from .identity import IdentityError

    setup_logging("hypermesh-agent")
    try:
        asyncio.run(run_until_signal(run(config)))
    except IdentityError as error:
        logging.getLogger(__name__).critical("%s", error)
        return 1
    return 0


def inventory_json(inventory: Inventory) -> dict[str, object]:
    """Hardware as `status` would show it; amounts in base units (millicores, bytes)."""
    return {
        "hardware": [
            {
                "type": str(item.kind),
                "hardwareID": item.hardware_id,
                "size": item.size,
                "capacity": item.capacity,
                "attributes": dict(item.attributes),
                "detail": dict(item.detail),
                "readings": dict(item.readings),
            }
            for item in inventory.hardware
        ],
        "failures": {str(kind): message for kind, message in inventory.failures.items()},
    }


def inventory_table(inventory: Inventory) -> str:
    """One line for each piece of hardware, then one for each failure."""
    from hypermesh.quantities import render_short
    from hypermesh.resources import RESOURCE_OF_TYPE

    lines = [("TYPE", "SIZE", "GIVEN", "HARDWARE", "MODEL")]
    for item in inventory.hardware:
        resource = RESOURCE_OF_TYPE[item.kind]
        size, given = render_short(resource, item.size), render_short(resource, item.capacity)
        lines.append((str(item.kind), size, given, item.hardware_id, str(item.detail.get("model", ""))))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    text = ""
    for line in lines:
        columns = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        text += "  ".join([*columns, line[4]]).rstrip() + "\n"
    return text + "".join(f"{kind}: {message}\n" for kind, message in inventory.failures.items())


if __name__ == "__main__":
    sys.exit(main())
