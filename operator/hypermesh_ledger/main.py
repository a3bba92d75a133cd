"""hypermesh-ledger: `run` one validator as two supervised processes, its `state`, proofs and backups."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hypermesh_clients import serving
from hypermesh_ledger import account, backups, exporting, restoring
from hypermesh_ledger.home import RPC_SOCKET
from hypermesh_ledger.options import (
    NAMED_PARAMETERS,
    add_application_options,
    check_application_options,
    find_cometbft,
    loopback,
)
from hypermesh_ledger.supervisor import EX_CONFIG, Commands, Misconfigured, Supervisor

ACCOUNTS: Final = {
    "state": account.run,
    "prove": exporting.run,
    "backup": backups.run,
    "restore": restoring.run,
}
"""Commands beside `run`: they ask a running ledger, or handle its directory."""

_log = logging.getLogger("hypermesh_ledger")


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the application's command line. Ends with a usage error for what makes no sense."""
    parser = argparse.ArgumentParser(prog="hypermesh-ledger", description="The ledger: CometBFT and its application.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the ledger until a signal", description="Run the ledger.")
    run.add_argument(
        "--home",
        type=Path,
        default=Path(os.environ.get("HYPERMESH_LEDGER_HOME", "/var/lib/hypermesh-ledger")),
        help="directory of keys, blocks and state (HYPERMESH_LEDGER_HOME; default %(default)s)",
    )
    run.add_argument(
        "--cometbft",
        default=os.environ.get("HYPERMESH_COMETBFT"),
        help="the CometBFT v0.40.0 program (HYPERMESH_COMETBFT; default: build/bin/cometbft, then the PATH)",
    )
    run.add_argument(
        "--rpc",
        type=loopback,
        default=os.environ.get("HYPERMESH_LEDGER_RPC") or None,
        metavar="[::1]:PORT",
        help="let CometBFT's RPC listen on this loopback address too, as `cometbft light` needs (HYPERMESH_LEDGER_RPC; "
        "default: only a unix socket)",
    )
    add_application_options(run)
    account.add_parser(commands)
    exporting.add_parser(commands)
    backups.add_parser(commands)
    restoring.add_parser(commands)
    options = parser.parse_args(argv)
    if options.command in ACCOUNTS:
        return options, []
    check_application_options(run, options)
    return options, application_command(options)


def application_command(options: argparse.Namespace) -> list[str]:
    """How the supervisor starts the application."""
    command = [sys.executable, "-P", "-m", "hypermesh_ledger.application"]
    for name in (
        "host",
        "port",
        "metrics_port",
        "chain_id",
        "proof_parameters",
        "snapshot_interval",
        "p2p_address",
        "peers",
        "name",
        "peers_tls_name",
        "root_public_key",
        "tls_cert",
        "tls_key",
        "tls_ca",
        "falcon_key",
        "falcon_certificate",
        "namespace",
        "trustchain",
        "token_file",
    ):
        value = getattr(options, name)
        if name == "proof_parameters" and value not in NAMED_PARAMETERS:
            value = Path(value).resolve()  # the application runs in another directory
        if value is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    return command


def cometbft_command(program: str, home: Path, rpc: str | None) -> list[str]:
    """How the supervisor starts CometBFT; with `rpc`, host:port, its RPC listens there too, and can only be read."""
    command = [program, "start", "--home", str(home)]
    return [*command, "--rpc.laddr", f"unix://{RPC_SOCKET},tcp://{rpc}", "--rpc.unsafe=false"] if rpc else command


async def supervise(home: Path, commands: Commands) -> None:
    """Until SIGTERM or SIGINT. Raises Misconfigured."""
    work = asyncio.create_task(Supervisor(home, commands).run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        if not work.cancelled():
            raise


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: 0 after a signal, 78 when a person must mend the configuration first; 1 without a ledger to ask."""
    options, application = parse(sys.argv[1:] if argv is None else argv)
    if options.command in ACCOUNTS:
        return ACCOUNTS[options.command](options)
    serving.setup_logging("ledger-supervisor")
    cometbft = find_cometbft(options.cometbft)
    if cometbft is None:
        _log.critical("CometBFT is not at %s: give --cometbft, or build it with `make tools`.", options.cometbft)
        return EX_CONFIG
    home = options.home.resolve()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _log.critical("Can't use %s: %s. Give --home a directory on a writable volume.", home, error)
        return EX_CONFIG
    commands = Commands(application, cometbft_command(cometbft, home, options.rpc))
    try:
        asyncio.run(supervise(home, commands))
    except Misconfigured as error:
        _log.critical("%s", error)
        return EX_CONFIG
    return 0


if __name__ == "__main__":
    sys.exit(main())
