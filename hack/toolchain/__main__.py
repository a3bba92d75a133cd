"""`python3 hack/toolchain [names]`: builds the pinned tools that are missing and links them in build/bin."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pinned_tools.building import build_all, plan
from pinned_tools.cache import cache_root
from pinned_tools.catalog import ON_DEMAND, TOOLS
from pinned_tools.gotool import ToolchainError

CHECKOUT = Path(__file__).resolve().parents[2]


def main(arguments: list[str]) -> int:
    """Parses the command line, builds, and answers the exit status."""
    known = {tool.name: tool for tool in TOOLS}
    parser = argparse.ArgumentParser(prog="python3 hack/toolchain", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; default: all but {', '.join(ON_DEMAND)}"
    )
    parser.add_argument("--list", action="store_true", help="show name, version and path, and build nothing")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"no tool {', '.join(unknown)}; there are {', '.join(known)}")
    wanted = options.names or known.keys() - ON_DEMAND
    chosen = [tool for tool in TOOLS if tool.name in wanted]
    root = cache_root(os.environ)
    if options.list:
        for item in (plan(tool, root) for tool in chosen):
            print(f"{item.tool.name}\t{item.version}\t{item.target if item.ready else 'not built'}")
        return 0
    try:
        build_all(chosen, root, CHECKOUT / "build" / "bin")
    except ToolchainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
