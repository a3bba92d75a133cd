"""The TrustChain process: opens the root, publishes it, enrols whoever proves to be one of ours.

Start order matters to Kubernetes: probes answer first (not ready, with the reason), then the root is opened
or made, published, and only then does the gRPC port open.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Coroutine
from typing import Any

from prometheus_client import Gauge

from hypermesh import falcon, keyfile
from hypermesh_clients import serving
from hypermesh_clients.key_encryption import Wrapping
from hypermesh_clients.kube import Kube, KubeError
from hypermesh_clients.kube_config import ConfigError
from hypermesh_clients.kube_resources import NAMESPACES
from hypermesh_clients.kube_secrets import fill_once
from hypermesh_clients.trust import KEK_ENTRY, KEK_SECRET, Trust
from hypermesh_trustchain.enrolling import Enroller, Place
from hypermesh_trustchain.publishing import FederationMismatch, Publisher
from hypermesh_trustchain.root_store import UNUSABLE, RootStore
from hypermesh_trustchain.roots import CLUSTER, PRIVATE, SECRET, Root
from hypermesh_trustchain.service import PORT, ServerCertificate, server

log = logging.getLogger("hypermesh_trustchain")

_KNOWN = Gauge("hypermesh_trustchain_known_nodes", "Node keys in the registry.")
_EXPIRES = Gauge("hypermesh_trustchain_tls_root_expiry_seconds", "Unix time at which the TLS root ends.")
GRACE = 5.0
FATAL = (*UNUSABLE, FederationMismatch, ConfigError, falcon.NativeLibraryMissing)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Flags; defaults from the environment the chart sets."""
    parser = argparse.ArgumentParser(
        prog="hypermesh-trustchain", description="Holds the root, enrols nodes and services."
    )
    parser.add_argument(
        "--namespace",
        default=os.environ.get("POD_NAMESPACE", "hypermesh-system"),
        help="install namespace, whose service accounts may enrol (POD_NAMESPACE; default %(default)s)",
    )
    parser.add_argument("--listen", default=f"[::]:{PORT}", help="gRPC address (default %(default)s)")
    parser.add_argument(
        "--metrics-port",
        type=int,
        default=int(os.environ.get("HYPERMESH_METRICS_PORT", serving.METRICS_PORT)),
        help="port of /metrics, /healthz and /readyz (HYPERMESH_METRICS_PORT; default %(default)s)",
    )
    return parser.parse_args(argv)


class Starting:
    """The readiness check until the root is open."""

    def __init__(self) -> None:
        self.reason: str | None = "opening the root"

    def check(self) -> str | None:
        """None once started."""
        return self.reason


async def open_root(kube: Kube, store: RootStore, starting: Starting) -> tuple[Root, str]:
    """The root and the cluster's uid, however long Kubernetes takes to let us have them; all keys are filled then."""
    pause = 0.5
    while True:
        try:
            cluster = await kube.get(NAMESPACES, "kube-system")
            root = await store.open()
            await fill_wrapping_key(kube, store.namespace)
            return root, str(cluster["metadata"]["uid"])
        except KubeError as error:
            starting.reason = str(error)
            log.warning("can't open the root yet: %s", error)
        await asyncio.sleep(pause)
        pause = min(pause * 2, 10.0)


async def fill_wrapping_key(kube: Kube, namespace: str) -> None:
    """The cluster's half of the agents' wrapping key: made once and never replaced, for it opens every node's key."""
    await fill_once(kube, namespace, KEK_SECRET, KEK_ENTRY, lambda: {KEK_ENTRY: os.urandom(keyfile.SECRET_BYTES)})


async def until_first_ends(*works: Coroutine[Any, Any, None]) -> None:
    """Runs all until one ends or raises, then ends the others; raises what that one raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run(options: argparse.Namespace) -> None:
    """Until cancelled. Raises the FATAL errors."""
    falcon.native()
    starting = Starting()
    probes = serving.Probes(options.metrics_port, {"root": starting.check})
    await probes.start()
    async with Kube.auto(user_agent="hypermesh-trustchain") as kube:
        store = RootStore(kube, options.namespace, Wrapping.of(SECRET, PRIVATE, os.environ))
        root, cluster_uid = await open_root(kube, store, starting)
        trust = Trust(root.falcon.public, root.ca_pem, root.federation, CLUSTER, root.prefix, cluster_uid)
        publisher = Publisher(kube, options.namespace, trust)
        probes.add("trust", publisher.check)
        _EXPIRES.set(root.tls_certificate.not_valid_after_utc.timestamp())
        _KNOWN.set_function(lambda: store.known)
        enroller = Enroller(kube, store, root, Place(options.namespace, cluster_uid))
        grpc_server, port = server(enroller, ServerCertificate(root, options.namespace), options.listen)
        await grpc_server.start()
        starting.reason = None
        log.info("serving federation %s, prefix %s, on port %d", root.federation.hex(), root.prefix, port)
        try:
            await until_first_ends(publisher.run(), store.broken())
        finally:
            await grpc_server.stop(GRACE)
            await probes.stop()


def main(argv: list[str] | None = None) -> int:
    """Entry point; 0 after a signal, 1 with one log line when something needs a person."""
    options = arguments(argv)
    serving.setup_logging("trustchain")
    try:
        asyncio.run(serving.run_until_signal(run(options)))
    except FATAL as error:
        log.critical("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
