"""The node's Assets as the parts of the agent know them: hardware under its ledger id and resource name.

Registration, publishing and the proxy all look here; the survey replaces the content after each round. Nothing is
shared between threads: one event loop reads and writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from hypermesh import operations
from hypermesh.resources import ASSET_TYPES
from hypermesh.v1 import ledger_pb2

from .hardware import Hardware, Json, Kind

NAME_DIGITS: Final = 8


@dataclass(frozen=True, slots=True)
class NodeAsset:
    """Hardware with its identity: asset_id (32 bytes), name of the Asset resource, work_device (an asset id)."""

    asset_id: bytes
    name: str
    hardware: Hardware
    work_device: bytes

    @property
    def type(self) -> ledger_pb2.AssetType:
        return ASSET_TYPES[self.hardware.kind]

    def attributes(self) -> dict[str, str]:
        """Flat facts for people who ask the resource service: attributes, and the plain values of detail."""
        plain = {key: _plain(value) for key, value in self.hardware.detail.items() if isinstance(value, str | int)}
        return {**plain, **self.hardware.attributes}


class AssetDirectory:
    """By asset id; iteration in the order of names."""

    def __init__(self, node_name: str, key_id: bytes) -> None:
        self._node_name = node_name
        self._key_id = key_id
        self._assets: dict[bytes, NodeAsset] = {}

    def replace(self, hardware: Iterable[Hardware]) -> None:
        """Takes a survey's result as the whole truth about what this node has."""
        self._assets = {asset.asset_id: asset for asset in identified(hardware, self._node_name, self._key_id)}

    def get(self, asset_id: bytes) -> NodeAsset | None:
        return self._assets.get(asset_id)

    def __iter__(self) -> Iterator[NodeAsset]:
        return iter(self._assets.values())

    def __len__(self) -> int:
        return len(self._assets)

    def devices(self) -> tuple[NodeAsset, ...]:
        """What does proof of work: every CPU pool and GPU."""
        return tuple(asset for asset in self if asset.hardware.kind in (Kind.CPU, Kind.GPU))


def identified(hardware: Iterable[Hardware], node_name: str, key_id: bytes) -> list[NodeAsset]:
    """Ids and names of hardware on one node, sorted by name. Without any CPU (probe failed) only what works itself."""
    items = list(hardware)
    ids = {id(item): operations.asset_id(key_id, ASSET_TYPES[item.kind], item.hardware_id) for item in items}
    worker = min((item for item in items if item.kind is Kind.CPU), key=lambda item: item.hardware_id, default=None)
    assets = []
    for item in items:
        asset_id = ids[id(item)]
        own = item.kind in (Kind.CPU, Kind.GPU)
        if not own and worker is None:
            continue
        device = asset_id if own or worker is None else ids[id(worker)]
        name = f"{node_name}-{item.kind}-{asset_id.hex()[:NAME_DIGITS]}"
        assets.append(NodeAsset(asset_id, name, item, device))
    return sorted(assets, key=lambda asset: asset.name)


def _plain(value: Json) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
