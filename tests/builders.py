"""Correct members and operations of a federation made for one test; tests then break what they are about.

Pure: keys, certificates, messages; nothing runs. See integration/ledger_fixture.py for a ledger to send them to.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypermesh import addressing, certificates, falcon, operations
from hypermesh.v1 import ledger_pb2, trust_pb2

CLUSTER_UID = "6a1f0c52-0000-4000-8000-000000000001"


@dataclass(frozen=True)
class TrustRoot:
    """A TrustChain root made for one test: it signs whatever certificate the test wants."""

    keypair: falcon.KeyPair = field(default_factory=falcon.generate)

    @property
    def federation(self) -> bytes:
        return addressing.federation_id(self.keypair.public)

    def issue(
        self,
        public: bytes,
        role: trust_pb2.Role,
        subject: str,
        *,
        cluster_uid: str = CLUSTER_UID,
        cluster: int = 1,
        counter: int = 0,
        not_before: int | None = None,
        lifetime_s: int = 86_400,
    ) -> trust_pb2.Certificate:
        """A certificate valid from ten minutes ago."""
        begin = int(time.time()) - 600 if not_before is None else not_before
        body = trust_pb2.CertificateBody(
            version=1,
            algorithm=trust_pb2.SIGNATURE_ALGORITHM_FALCON_PADDED_1024,
            subject_key=public,
            role=role,
            subject=subject,
            federation=self.federation,
            cluster=cluster,
            cluster_uid=cluster_uid,
            node_counter=counter,
            not_before=begin,
            not_after=begin + lifetime_s,
            issuer=falcon.key_id(self.keypair.public),
            serial=secrets.token_bytes(16),
        )
        return certificates.issue(self.keypair.secret, body)


@dataclass(frozen=True)
class Member:
    """An enrolled key."""

    keypair: falcon.KeyPair
    certificate: trust_pb2.Certificate

    @property
    def key_id(self) -> bytes:
        return falcon.key_id(self.keypair.public)

    @property
    def body(self) -> trust_pb2.CertificateBody:
        return trust_pb2.CertificateBody.FromString(self.certificate.body)

    def asset_id(self, kind: ledger_pb2.AssetType, hardware_id: str) -> bytes:
        return operations.asset_id(self.key_id, kind, hardware_id)


def member(root: TrustRoot, role: trust_pb2.Role, subject: str, **terms: object) -> Member:
    """A new key with a certificate, not enrolled yet."""
    keypair = falcon.generate()
    return Member(keypair, root.issue(keypair.public, role, subject, **terms))  # type: ignore[arg-type]


def registration(
    node: Member,
    kind: ledger_pb2.AssetType,
    hardware_id: str,
    capacity: int,
    *,
    work_device: bytes | None = None,
    privacy: ledger_pb2.PrivacyLevel = ledger_pb2.PRIVACY_LEVEL_PRIVATE,
    namespaces: Sequence[str] = (),
    price: str = "0",
) -> ledger_pb2.RegisterAsset:
    """A correct RegisterAsset of a node."""
    asset_id = node.asset_id(kind, hardware_id)
    return ledger_pb2.RegisterAsset(
        asset_id=asset_id,
        name=f"{node.body.subject}-{hardware_id}",
        type=kind,
        hardware_id=hardware_id,
        capacity=capacity,
        address=_address(node, kind, hardware_id, 0),
        sharing=ledger_pb2.Sharing(privacy_level=privacy, owner_namespaces=namespaces, price_per_hour=price),
        work_device=work_device or asset_id,
    )


def allocation(
    node: Member,
    asset: ledger_pb2.RegisterAsset,
    uid: str,
    amount: int,
    *,
    cluster_uid: str = CLUSTER_UID,
    namespace: str = "default",
    lease_seconds: int = 3600,
    privacy: ledger_pb2.PrivacyLevel = ledger_pb2.PRIVACY_LEVEL_PRIVATE,
) -> ledger_pb2.Allocate:
    """A correct Allocate of an asset."""
    allocation_id = operations.allocation_id(cluster_uid, uid)
    counter = addressing.allocation_counter(allocation_id)
    return ledger_pb2.Allocate(
        allocation_id=allocation_id,
        namespace=namespace,
        name=f"a-{uid}",
        uid=uid,
        asset_id=asset.asset_id,
        amount=amount,
        privacy_level=privacy,
        lease_seconds=lease_seconds,
        address=_address(node, asset.type, asset.hardware_id, counter),
        address_counter=counter,
        port=7443,
        capability_hash=secrets.token_bytes(32),
    )


def _address(node: Member, kind: int, hardware_id: str, counter: int) -> bytes:
    body = node.body
    return addressing.asset_address(
        body.federation,
        body.cluster,
        node.key_id,
        body.node_counter,
        addressing.AddressType.of_asset(kind),
        hardware_id,
        counter,
    ).packed
