"""The baseline of the operator benchmark: kopf with handlers that do nothing.

A handler for creation, resumption, update and deletion, as anything needs that holds something outside of the cluster:
kopf adds its finalizer, and its annotation after the handler. Own login without the official client, as kopf's
documentation has it. Run under the same service account, against the same API server, in the same run as ours.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

for _unwanted in ("kubernetes", "kubernetes_asyncio", "pykube"):
    sys.modules[_unwanted] = None  # type: ignore[assignment]

import json  # noqa: E402
import logging  # noqa: E402

import kopf  # noqa: E402
import uvloop  # noqa: E402


def main() -> None:
    """KUBECONFIG (JSON, one bearer token) is the only argument."""
    config = json.loads(Path(sys.argv[1]).read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        authority = cluster["certificate-authority-data"]
        return kopf.ConnectionInfo(server=cluster["server"], ca_data=authority, token=user["token"])

    @kopf.on.create("hypermesh.online", "v1alpha1", "allocations", registry=registry)
    @kopf.on.resume("hypermesh.online", "v1alpha1", "allocations", registry=registry)
    @kopf.on.update("hypermesh.online", "v1alpha1", "allocations", registry=registry)
    @kopf.on.delete("hypermesh.online", "v1alpha1", "allocations", registry=registry)
    async def handle(**_: Any) -> None:
        return

    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    uvloop.run(kopf.operator(registry=registry, clusterwide=True, standalone=True))


if __name__ == "__main__":
    main()
