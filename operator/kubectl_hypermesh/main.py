"""Entry point: parse, run one command, render errors in one sentence."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from importlib.metadata import version
from pathlib import Path

from hypermesh_clients.kube_config import ConfigError
from hypermesh_clients.kube_errors import KubeError
from hypermesh_clients.ledger import LedgerUnavailable
from kubectl_hypermesh.commands import access, assets, check, ledger, proxy, status
from kubectl_hypermesh.options import INSTALL_NAMESPACE, CommandError, Options
from kubectl_hypermesh.output import FORMATS

COMMANDS = (check, status, assets, proxy, ledger, access)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; each command module adds its own part."""
    common = argparse.ArgumentParser(add_help=False)
    group = common.add_argument_group("global flags")
    group.add_argument("--kubeconfig", type=Path, help="path of the kubeconfig (default: $KUBECONFIG, ~/.kube/config)")
    group.add_argument("--context", help="kubeconfig context")
    group.add_argument(
        "--install-namespace",
        default=os.environ.get("HYPERMESH_NAMESPACE", INSTALL_NAMESPACE),
        help="namespace of the chart (default: %(default)s)",
    )
    group.add_argument(
        "-n", "--namespace", default="default", help="namespace of the Allocation (default: %(default)s)"
    )
    group.add_argument("-o", "--output", choices=FORMATS, default="table", help="output format (default: %(default)s)")
    parser = argparse.ArgumentParser(
        prog="kubectl hypermesh",
        description="Hardware of many machines, proven by four proofs, under one IPv6 proxy address.",
    )
    parser.add_argument("--version", action="version", version=f"kubectl-hypermesh {version('hypermesh')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add_parser(commands, common)
    return parser


async def run(arguments: argparse.Namespace) -> int:
    """Runs the chosen command; returns its exit status."""
    options = Options(
        kubeconfig=arguments.kubeconfig,
        context=arguments.context,
        namespace=arguments.namespace,
        install_namespace=arguments.install_namespace,
        output=arguments.output,
    )
    status_code: int = await arguments.run(options, arguments)
    return status_code


def main() -> None:
    arguments = build_parser().parse_args()
    try:
        sys.exit(asyncio.run(run(arguments)))
    except (CommandError, KubeError, ConfigError, LedgerUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)


if __name__ == "__main__":
    main()
