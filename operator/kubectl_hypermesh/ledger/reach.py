"""The way from a person's machine to a ledger's gRPC service.

    ConfigMap hypermesh-trust -> the CA that vouches for the ledger
    --ledger HOST:PORT (in a Pod of the chart: HYPERMESH_LEDGER) -> straight there
    else `kubectl port-forward` to a ledger's pod, a ready one first -> [::1], TLS by the Service's name

kubectl itself forwards: it is there, as it calls this plugin, and knows every way to log in. What it needs is in
docs/how-to/look-into-the-ledger.md (Role hypermesh-ledger-look). With --ca nothing of Kubernetes is asked.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hypermesh_clients.kube import Kube
from hypermesh_clients.kube_resources import PODS
from hypermesh_clients.ledger import LedgerClient
from hypermesh_clients.trust import Trust, TrustInvalid, TrustNotPublished, read_trust
from kubectl_hypermesh.options import CommandError, Options
from kubectl_hypermesh.output import condition

PORT: Final = 7450
FORWARD_S: Final = 20.0
END_S: Final = 5.0
SELECTOR: Final = "app.kubernetes.io/name=hypermesh,app.kubernetes.io/component=ledger"
_FORWARDS: Final = re.compile(r"Forwarding from \[::1\]:(\d+) ->")


@dataclass(frozen=True, slots=True)
class Reached:
    """A ledger that can be asked. kube and trust are None with --ca; pod is None with --ledger."""

    client: LedgerClient
    kube: Kube | None
    trust: Trust | None
    pod: str | None
    pods: list[dict[str, Any]]


def flags() -> argparse.ArgumentParser:
    """Flags of every subcommand that asks a ledger."""
    parent = argparse.ArgumentParser(add_help=False)
    group = parent.add_argument_group("which ledger")
    group.add_argument("--pod", help="the ledger's pod to ask (default: one that is ready)")
    group.add_argument(
        "--ledger",
        metavar="HOST:PORT",
        default=os.environ.get("HYPERMESH_LEDGER"),
        help="ask this address directly, without port-forward (default: $HYPERMESH_LEDGER)",
    )
    group.add_argument(
        "--ca", type=Path, help="PEM that the ledger's certificate is checked by; with --ledger, no Kubernetes is asked"
    )
    return parent


def choose(pods: list[dict[str, Any]], wanted: str | None) -> str:
    """The pod to ask: the wanted one, else one that is ready, else one that runs. Raises CommandError."""
    running = [pod for pod in pods if pod.get("status", {}).get("phase") == "Running"]
    names: list[str] = [pod["metadata"]["name"] for pod in running]
    if wanted is not None:
        if wanted in names:
            return wanted
        known = ", ".join(sorted(pod["metadata"]["name"] for pod in pods)) or "none"
        raise CommandError(f"pod {wanted} is no running ledger (ledgers: {known})")
    if not names:
        found = ", ".join(f"{pod['metadata']['name']} {pod.get('status', {}).get('phase', '')}" for pod in pods)
        raise CommandError(f"no ledger runs ({found or 'no pod at all'}); see: kubectl hypermesh check")
    ready: list[str] = [pod["metadata"]["name"] for pod in running if condition(pod, "Ready")["status"] == "True"]
    return sorted(ready or names)[0]


@contextlib.asynccontextmanager
async def reached(options: Options, arguments: argparse.Namespace) -> AsyncIterator[Reached]:
    """A client of the chosen ledger. Raises CommandError, KubeError, ConfigError."""
    async with contextlib.AsyncExitStack() as stack:
        if arguments.ca is not None:
            if not arguments.ledger:
                raise CommandError("--ca goes with --ledger HOST:PORT")
            try:
                ca_pem = arguments.ca.read_bytes()
            except OSError as error:
                raise CommandError(f"can't read {arguments.ca}: {error}") from error
            client = LedgerClient(arguments.ledger, ca_pem)
            stack.push_async_callback(client.close)
            yield Reached(client, None, None, None, [])
            return
        kube = await stack.enter_async_context(options.kube())
        try:
            trust = await read_trust(kube, options.install_namespace, patience=0.0)
        except (TrustInvalid, TrustNotPublished) as error:
            raise CommandError(str(error)) from error
        pods: list[dict[str, Any]] = []
        pod: str | None = None
        if arguments.ledger and not arguments.pod:
            client = LedgerClient(arguments.ledger, trust.ca_pem)
        else:
            pods = await kube.list(PODS, options.install_namespace, label_selector=SELECTOR)
            pod = choose(pods, arguments.pod)
            port = await stack.enter_async_context(_forwarded(options, pod))
            name = f"hypermesh-ledger.{options.install_namespace}.svc"
            client = LedgerClient(f"[::1]:{port}", trust.ca_pem, name)
        stack.push_async_callback(client.close)
        yield Reached(client, kube, trust, pod, pods)


@contextlib.asynccontextmanager
async def _forwarded(options: Options, pod: str) -> AsyncIterator[int]:
    command = ["kubectl", "--namespace", options.install_namespace]
    if options.kubeconfig is not None:
        command += ["--kubeconfig", str(options.kubeconfig)]
    if options.context is not None:
        command += ["--context", options.context]
    command += ["port-forward", "--address", "::1", f"pod/{pod}", f":{PORT}"]
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise CommandError(
            f"kubectl can't be called ({error}): put it on the PATH, or give --ledger HOST:PORT"
        ) from error
    try:
        yield await _port(process, pod)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(END_S):
                    await process.communicate()
            except TimeoutError:
                process.kill()
                await process.wait()


async def _port(process: asyncio.subprocess.Process, pod: str) -> int:
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(FORWARD_S):
            line = (await process.stdout.readline()).decode()
            if found := _FORWARDS.match(line):
                return int(found[1])
            said = (line + (await process.stderr.read()).decode()).strip()
    except TimeoutError:
        said = f"nothing for {FORWARD_S:.0f} s"
    raise CommandError(
        f"kubectl port-forward to pod {pod} says: {said or 'nothing'}; it needs create on pods/portforward"
    )
