"""`kubectl hypermesh read|write|describe`: use an Allocation through its proxy address.

The access Secret of the Allocation names the address, the token and the TLS root. The bytes go straight to the
address; from a machine that has no route to the federation's prefix, run the command in a Pod.
"""

from __future__ import annotations

import argparse
import base64
import sys
from pathlib import Path
from typing import Any

from hypermesh_clients.kube import Kube, NotFound
from hypermesh_clients.kube_resources import ALLOCATIONS, SECRETS
from hypermesh_clients.resource import ResourceClient, ResourceError
from kubectl_hypermesh.options import CommandError, Options
from kubectl_hypermesh.output import condition, structured


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    read = commands.add_parser("read", parents=[common], help="read bytes of an allocated memory or storage region")
    _allocation(read)
    read.add_argument("--offset", type=_size, default=0, help="first byte (default: 0)")
    read.add_argument("--length", type=_size, help="bytes to read (default: to the end)")
    read.add_argument("--file", type=Path, help="write to this file instead of standard output")
    read.set_defaults(run=run_read)
    write = commands.add_parser("write", parents=[common], help="write standard input, or a file, into the region")
    _allocation(write)
    write.add_argument("--offset", type=_size, default=0, help="first byte (default: 0)")
    write.add_argument("--file", type=Path, help="read from this file instead of standard input")
    write.set_defaults(run=run_write)
    describe = commands.add_parser("describe", parents=[common], help="ask the hardware at the address what it is")
    _allocation(describe)
    describe.set_defaults(run=run_describe)


def _allocation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("allocation", help="name of the Allocation")


def _size(text: str) -> int:
    """Bytes, with an optional binary suffix: 4096, 64Ki, 1Mi, 2Gi."""
    for suffix, factor in (("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30)):
        if text.endswith(suffix) and text[:-2].isdigit():
            return int(text[:-2]) * factor
    if text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no byte count; write 4096, 64Ki or 1Mi")


async def connect(kube: Kube, options: Options, name: str) -> ResourceClient:
    """A client for the Allocation's address. Raises CommandError when it is not Ready or its Secret is not ours."""
    try:
        allocation = await kube.get(ALLOCATIONS, name, options.namespace)
    except NotFound as error:
        raise CommandError(
            f"allocation {name} does not exist in namespace {options.namespace}; see: kubectl get allocations -A"
        ) from error
    ready = condition(allocation, "Ready")
    if ready["status"] != "True":
        raise CommandError(
            f"allocation {name} is not Ready: {ready['reason'] or 'Pending'}: {ready['message'] or 'no message yet'}; "
            f"wait with: kubectl wait --for=condition=Ready allocation/{name} -n {options.namespace}"
        )
    secret_name = allocation["status"]["accessSecretName"]
    secret = await kube.get(SECRETS, secret_name, options.namespace)
    data = {key: base64.b64decode(value) for key, value in secret["data"].items()}
    return ResourceClient(
        data["address"].decode(), data["token"].decode(), data["ca.crt"], port=int(data["port"].decode())
    )


async def run_read(options: Options, arguments: argparse.Namespace) -> int:
    async with options.kube() as kube:
        client = await connect(kube, options, arguments.allocation)
        try:
            async with client:
                length = arguments.length
                if length is None:
                    length = max(0, (await client.describe()).size - arguments.offset)
                with Sink(arguments.file) as sink:
                    async for chunk in client.read_chunks(arguments.offset, length):
                        sink.write(chunk)
        except ResourceError as error:
            raise CommandError(str(error)) from error
    return 0


async def run_write(options: Options, arguments: argparse.Namespace) -> int:
    data = arguments.file.read_bytes() if arguments.file else sys.stdin.buffer.read()
    async with options.kube() as kube:
        client = await connect(kube, options, arguments.allocation)
        try:
            async with client:
                await client.write(arguments.offset, data)
        except ResourceError as error:
            raise CommandError(str(error)) from error
    print(f"wrote {len(data)} bytes to {arguments.allocation} at offset {arguments.offset}", file=sys.stderr)
    return 0


async def run_describe(options: Options, arguments: argparse.Namespace) -> int:
    async with options.kube() as kube:
        client = await connect(kube, options, arguments.allocation)
        try:
            async with client:
                answer = await client.describe()
        except ResourceError as error:
            raise CommandError(str(error)) from error
    shown = {
        "address": answer.address,
        "node": answer.node_name,
        "asset": answer.asset_name,
        "amount": answer.amount,
        "size": answer.size,
        "expiresMilliseconds": answer.expires_ms,
        **dict(answer.attributes),
    }
    print(structured(shown, "json" if options.output == "json" else "yaml"))
    return 0


class Sink:
    """Standard output, or a file that appears whole or not at all."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.part = path.with_name(path.name + ".part") if path else None

    def __enter__(self) -> Any:
        self.stream = self.part.open("wb") if self.part else sys.stdout.buffer
        return self.stream

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.part is None or self.path is None:
            self.stream.flush()
            return
        self.stream.close()
        if kind is None:
            self.part.replace(self.path)
        else:
            self.part.unlink(missing_ok=True)
