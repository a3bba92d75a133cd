"""The node's heartbeat: one Lease, `hypermesh-agent-<node>`, renewed while the agent lives.

It says that the agent runs, without a write to any Asset. Who wonders whether a silent Asset is alive looks here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from hypermesh.resources import AGENT_MANAGER, NODE_LABEL, node_label
from hypermesh_clients.kube import Kube
from hypermesh_clients.kube_errors import KubeError
from hypermesh_clients.kube_leases import heartbeat

_log = logging.getLogger(__name__)

EVERY_S: Final = 10.0
GOOD_FOR_S: Final = 40


def lease_name(node_name: str) -> str:
    return f"hypermesh-agent-{node_name}"


async def beat(kube: Kube, namespace: str, node_name: str, pod_name: str) -> None:
    """Renews for ever; a failure is told once and tried again at the next beat."""
    failing = False
    while True:
        try:
            await heartbeat(
                kube,
                namespace,
                lease_name(node_name),
                holder=pod_name or node_name,
                duration=GOOD_FOR_S,
                field_manager=AGENT_MANAGER,
                labels={NODE_LABEL: node_label(node_name)},
            )
            failing = False
        except KubeError as error:
            if not failing:
                _log.warning("%s", error)
            failing = True
        await asyncio.sleep(EVERY_S)
