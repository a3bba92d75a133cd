"""`kubectl_complete-hypermesh`: kubectl calls it with the words typed so far, the last one unfinished.

Prints one candidate a line and `:4` (no file completion), as kubectl's plugin completion expects.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from hypermesh_clients.kube_config import ConfigError
from hypermesh_clients.kube_errors import KubeError
from hypermesh_clients.kube_resources import ALLOCATIONS
from kubectl_hypermesh.main import build_parser
from kubectl_hypermesh.options import INSTALL_NAMESPACE, Options

WITH_ALLOCATION = ("read", "write", "describe")
NO_FILES = ":4"


def _choices(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def candidates(words: list[str]) -> list[str]:
    """Subcommands, flags and flag values that may stand where the last of `words` stands."""
    parser = build_parser()
    for word in words[:-1]:
        parser = _choices(parser).get(word, parser)
    last = words[-1] if words else ""
    if len(words) > 1:
        for action in parser._actions:
            if words[-2] in action.option_strings and action.choices:
                return sorted(str(choice) for choice in action.choices if str(choice).startswith(last))
    if last.startswith("-"):
        return sorted(flag for action in parser._actions for flag in action.option_strings if flag.startswith(last))
    return sorted(name for name in _choices(parser) if name.startswith(last))


async def _allocations(words: list[str]) -> list[str]:
    namespace = next((words[i + 1] for i, word in enumerate(words[:-1]) if word in ("-n", "--namespace")), "default")
    options = Options(None, None, namespace, INSTALL_NAMESPACE, "table")
    async with options.kube() as kube:
        return [item["metadata"]["name"] for item in await kube.list(ALLOCATIONS, namespace)]


def main() -> None:
    words = sys.argv[1:] or [""]
    found = candidates(words)
    if len(words) > 1 and words[0] in WITH_ALLOCATION and not words[-1].startswith("-") and not found:
        try:
            found = [name for name in asyncio.run(_allocations(words)) if name.startswith(words[-1])]
        except (KubeError, ConfigError):
            found = []  # completion never prints errors into the command line
    print("\n".join([*found, NO_FILES]))


if __name__ == "__main__":
    main()
