"""`python3 hack/cluster COMMAND`: a real Kubernetes cluster on this machine. See local_cluster for how."""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Parses the command line, runs one command, answers the exit status."""
    if arguments[:1] == ["boot"]:  # a machine's first process: loads as little as it can
        from local_cluster.machine import boot

        boot(Path(arguments[1]))
        return 0
    from local_cluster.state import ClusterError

    options = parser().parse_args(arguments)
    try:
        return run(options)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python3 hack/cluster", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="make the cluster run")
    up.add_argument("--nodes", type=int, default=int(os.environ.get("NODES") or "1"), help="default: $NODES or 1")
    down = commands.add_parser("down", help="end the cluster and remove its data")
    down.add_argument("--keep", action="store_true", help="keep the data, so that `up` resumes the same cluster")
    status = commands.add_parser("status", help="show what runs")
    status.add_argument("-o", "--output", choices=["table", "json"], default="table")
    commands.add_parser("kubeconfig", help="print the path of the administrator's kubeconfig")
    load = commands.add_parser("load", help="import an image tar into every node")
    load.add_argument("tar", type=Path)
    execute = commands.add_parser("node-exec", help="run a command in a node")
    execute.add_argument("node")
    execute.add_argument("run", nargs=argparse.REMAINDER, help="-- COMMAND; default: a shell")
    private = commands.add_parser("apiserver-only", help="run a private etcd and API server on ::1, without root")
    private.add_argument("--dir", type=Path, required=True, help="where its files go")
    private.add_argument("--until-eof", action="store_true", help="end when standard input ends (for test fixtures)")
    return top


def run(options: argparse.Namespace) -> int:
    """Runs the chosen command."""
    from local_cluster import nodes, paths, preflight, status
    from local_cluster.addresses import node_name
    from local_cluster.state import ClusterError, load, locked

    directory = paths.state_directory(os.environ)
    if options.command in {"up", "down", "load", "node-exec"}:
        preflight.require_root()
    if options.command == "up":
        from local_cluster.up import up

        with locked(directory):
            up(directory, options.nodes, paths.cache_root(os.environ), paths.BINARIES)
        print(f"export KUBECONFIG={load(directory).kubeconfig}")
        return 0
    if options.command == "down":
        from local_cluster.down import down

        with locked(directory):
            down(directory, keep=options.keep)
        return 0
    if options.command == "apiserver-only":
        from local_cluster.private_api import serve

        return serve(options.dir.absolute(), paths.BINARIES, until_eof=options.until_eof)
    state = load(directory)
    if options.command == "status":
        body = status.report(state, paths.BINARIES)
        print(json.dumps(body, indent=2) if options.output == "json" else status.table(body), end="")
        return 0
    if not state.nodes:
        raise ClusterError(f"no cluster in {directory}; run `make cluster-up`")
    if options.command == "kubeconfig":
        print(state.kubeconfig)
    elif options.command == "load":
        names = [node_name(number) for number in range(1, state.nodes + 1)]
        with ThreadPoolExecutor(max_workers=len(names)) as pool:
            list(pool.map(lambda name: nodes.import_image(state, name, [options.tar]), names))
    else:
        nodes.execute(state, options.node, [word for word in options.run if word != "--"])
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
