"""The custom resources as values: names shared by every writer, and typed views of what people wrote.

A body as decoded JSON (already validated by the CRD's schema) -> `AllocationSpec`. Pure; the CRDs in crds/ are the
truth about fields and their defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hypermesh import quantities
from hypermesh.digests import digest
from hypermesh.v1 import ledger_pb2

GROUP: Final = "hypermesh.online"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
FINALIZER: Final = f"{GROUP}/release"
NODE_LABEL: Final = f"{GROUP}/node"
MAX_LABEL: Final = 63
TYPE_LABEL: Final = f"{GROUP}/type"
ACCESS_SECRET_TYPE: Final = f"{GROUP}/access"
OPERATOR_MANAGER: Final = "hypermesh-operator"
AGENT_MANAGER: Final = "hypermesh-agent"
RESOURCE_PORT: Final = 7443
"""Where the resource service answers, at every proxy address."""

RESOURCE_OF_TYPE: Final[Mapping[str, str]] = {
    "cpu": "cores",
    "gpu": "gpuMemory",
    "memory": "memory",
    "storage": "storage",
}
"""The field of spec.resources, status.capacity, … that counts an asset type."""

ASSET_TYPES: Final[Mapping[str, ledger_pb2.AssetType]] = {
    "cpu": ledger_pb2.ASSET_TYPE_CPU,
    "gpu": ledger_pb2.ASSET_TYPE_GPU,
    "memory": ledger_pb2.ASSET_TYPE_MEMORY,
    "storage": ledger_pb2.ASSET_TYPE_STORAGE,
}
ASSET_TYPE_NAMES: Final[Mapping[int, str]] = {number: name for name, number in ASSET_TYPES.items()}

PRIVACY_LEVELS: Final[Mapping[str, ledger_pb2.PrivacyLevel]] = {
    "Private": ledger_pb2.PRIVACY_LEVEL_PRIVATE,
    "Public": ledger_pb2.PRIVACY_LEVEL_PUBLIC,
    "Anonymous": ledger_pb2.PRIVACY_LEVEL_ANONYMOUS,
    "Verified": ledger_pb2.PRIVACY_LEVEL_VERIFIED,
}
PRIVACY_LEVEL_NAMES: Final[Mapping[int, str]] = {number: name for name, number in PRIVACY_LEVELS.items()}


def node_label(node_name: str) -> str:
    """The value of NODE_LABEL: the node's name, or its beginning and a hash where a label (63 characters) is short."""
    if len(node_name) <= MAX_LABEL:
        return node_name
    mark = digest("label", node_name.encode()).hex()[:10]
    return f"{node_name[: MAX_LABEL - 1 - len(mark)].rstrip('-.')}-{mark}"


def access_secret_name(allocation: str) -> str:
    """Name of the Secret that holds the token of an Allocation."""
    return f"{allocation}-access"


@dataclass(frozen=True, slots=True)
class AllocationSpec:
    """What a tenant asks for. amount in base units, max_price in grains an hour (None: any), min_trust 0-10000."""

    type: str
    amount: int
    privacy_level: ledger_pb2.PrivacyLevel
    lease_seconds: int
    asset_name: str | None = None
    max_price: int | None = None
    min_trust: int = 0

    @property
    def resource(self) -> str:
        """The resource field that counts it."""
        return RESOURCE_OF_TYPE[self.type]


def allocation_spec(spec: Mapping[str, Any]) -> AllocationSpec:
    """Reads Allocation.spec. Raises QuantityInvalid or KeyError only for what the CRD's schema already refuses."""
    kind = str(spec["type"])
    price = spec.get("maxPricePerHour")
    return AllocationSpec(
        type=kind,
        amount=quantities.parse(RESOURCE_OF_TYPE[kind], spec["resources"][RESOURCE_OF_TYPE[kind]]),
        privacy_level=PRIVACY_LEVELS[spec.get("privacyLevel", "Private")],
        lease_seconds=quantities.parse_duration(spec.get("leaseDuration", "24h")),
        asset_name=spec.get("assetName"),
        max_price=None if price is None else quantities.parse_caesar(price),
        min_trust=int(spec.get("minTrustScore", 0)) * 100,
    )
