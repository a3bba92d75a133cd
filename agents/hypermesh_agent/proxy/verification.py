"""Is this committed mapping to be believed? An ordered chain of pure checks, each a function Claim -> Refusal | None.

    record from the ledger's mirror -> canonical decode -> Claim -> address bits, certificate path and constraint,
    validity window and height, tenant's limits, trust threshold, FALCON-1024 signature -> None, or the first refusal

A grant is judged by what held when it was made. The mirror knows today's values alone: the signer's certificate may be
a renewed one, the asset's sharing and this node's own threshold may have changed since. So a certificate need not be
older than the grant, the sharing counts when it is, and the threshold counts for grants this node did not let in yet:
what an owner changes is for new tenants, not for a running lease.

The ledger checked all of this when it committed the operation; the node checks again because it is the node that
opens its kernel and its memory: a forged or damaged mirror must not be enough. Cheap checks come first. Reasons are
those of hypermesh.refusals where the ledger knows the same cause, else words of our own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from hypermesh import addressing, certificates, falcon, operations, quantities
from hypermesh.refusals import Reason, Refused
from hypermesh.resources import RESOURCE_PORT
from hypermesh.v1 import ledger_pb2, trust_pb2

CLOCK_SKEW_MS: Final = 30_000
"""How far this node's clock may be behind the ledger's block time."""
SCORE_DRIFT: Final = 500
"""The ledger judged the score at the grant; by this much it may have fallen since (some missed epochs)."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a mapping is not programmed; shown in the ProxyMapping's condition."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Standpoint:
    """What the verifying node knows by itself: who it is and whom it trusts. Key ids and hashes are 32 bytes."""

    chain_id: str
    key_id: bytes
    prefix: IPv6Network
    federation: bytes
    cluster: int
    counter: int
    cluster_uid: str
    root_public: bytes
    minimum_trust: int = 0


@dataclass(frozen=True, slots=True)
class Claim:
    """One mapping with everything the checks look at."""

    record: ledger_pb2.AllocationRecord
    decoded: operations.Decoded
    here: Standpoint
    nodes: Mapping[bytes, ledger_pb2.NodeRecord]
    assets: Mapping[bytes, ledger_pb2.AssetRecord]
    now_ms: int
    seen_height: int
    """Height of the newest record of this allocation that this node let in; 0 for none, 1 when not remembered."""

    @property
    def operation(self) -> ledger_pb2.Allocate:
        return self.decoded.operation.allocate

    @property
    def address(self) -> IPv6Address:
        return IPv6Address(self.operation.address)

    @property
    def asset(self) -> ledger_pb2.AssetRecord:
        return self.assets[self.operation.asset_id]

    @property
    def asset_changed(self) -> bool:
        """Whether the asset's terms may be others than those of the grant. Records of one block don't tell which came
        first; the ledger judged the grant by those that held."""
        return self.asset.height >= self.record.height

    @property
    def signer(self) -> ledger_pb2.NodeRecord:
        return self.nodes[self.decoded.envelope.signer]


Check = Callable[[Claim], Refusal | None]


def verify(
    record: ledger_pb2.AllocationRecord,
    here: Standpoint,
    nodes: Mapping[bytes, ledger_pb2.NodeRecord],
    assets: Mapping[bytes, ledger_pb2.AssetRecord],
    now_ms: int,
    seen_height: int = 0,
) -> Claim | Refusal:
    """The whole chain over one committed allocation: the claim when every check passed, else the first refusal.

    `nodes` and `assets` are the mirror's, by id. Pure."""
    try:
        decoded = operations.decode(record.envelope)
    except Refused as error:
        return Refusal(error.reason, f"the signed transaction is not canonical: {error.message}")
    claim = Claim(record, decoded, here, nodes, assets, now_ms, seen_height)
    for check in CHECKS:
        if refusal := check(claim):
            return refusal
    return claim


def check_form(claim: Claim) -> Refusal | None:
    """The transaction is this very allocation, on this chain, and the record says the same as it."""
    decoded, record = claim.decoded, claim.record
    if decoded.kind != "allocate":
        return Refusal(Reason.Malformed, f"the transaction is {decoded.kind}, not allocate")
    operation = claim.operation
    if decoded.operation.chain_id != claim.here.chain_id:
        return Refusal(Reason.WrongChain, f"the transaction is for chain {decoded.operation.chain_id}")
    if operation.allocation_id != record.allocation_id or len(record.allocation_id) != 32:
        return Refusal(Reason.IdentifierWrong, "the record is of another allocation than its transaction")
    if decoded.tx_hash != record.tx_hash:
        return Refusal(Reason.IdentifierWrong, "the record's transaction hash is not that of its transaction")
    if len(operation.address) != 16 or len(operation.capability_hash) != 32:
        return Refusal(Reason.Malformed, "address or capability hash has a wrong length")
    return None


def check_address(claim: Claim) -> Refusal | None:
    """Every bit of the address follows from this node's certificate, the asset and the counter."""
    operation, here = claim.operation, claim.here
    if operation.port != RESOURCE_PORT:
        return Refusal(Reason.AddressWrong, f"port {operation.port} is not served, only {RESOURCE_PORT}")
    try:
        fields = addressing.parse(operation.address)
    except addressing.AddressError as error:
        return Refusal(Reason.AddressWrong, str(error))
    if fields.federation != here.federation:
        text = f"{claim.address} belongs to federation {fields.federation.hex()}, not {here.federation.hex()}"
        return Refusal(Reason.AddressWrong, text)
    if claim.address not in here.prefix:
        return Refusal(Reason.AddressWrong, f"{claim.address} is not in this node's prefix {here.prefix}")
    record = claim.assets.get(operation.asset_id)
    if record is None:
        return Refusal(Reason.NoSuchAsset, f"asset {operation.asset_id.hex()} is not registered")
    if record.node != here.key_id or claim.record.node != here.key_id:
        return Refusal(Reason.AddressWrong, f"asset {record.registration.name} belongs to another node")
    try:
        expected = addressing.asset_address(
            here.federation,
            here.cluster,
            here.key_id,
            here.counter,
            addressing.AddressType.of_asset(record.registration.type),
            record.registration.hardware_id,
            operation.address_counter,
        )
    except addressing.AddressError as error:
        return Refusal(Reason.AddressWrong, f"asset {record.registration.name} can't have an address: {error}")
    if claim.address != expected:
        return Refusal(Reason.AddressWrong, f"{claim.address} does not follow from the asset: {expected} does")
    return None


def check_certificate(claim: Claim) -> Refusal | None:
    """The signer's certificate leads to the federation's root, names an operator, and may speak for this asset."""
    record = claim.nodes.get(claim.decoded.envelope.signer)
    if record is None:
        return Refusal(Reason.UnknownSigner, f"signer {claim.decoded.envelope.signer.hex()} is not enrolled")
    certificate, here = record.certificate, claim.here
    problem, body = _certified(operations.canonical(certificate), here.root_public)
    if body is None:
        return Refusal(Reason.CertificateInvalid, f"the signer's certificate: {problem}")
    if claim.record.granted_ms >= body.not_after * 1000:
        text = f"the signer's certificate, of {body.subject}, ended at {body.not_after}, before the grant"
        return Refusal(Reason.CertificateInvalid, text)
    if falcon.key_id(body.subject_key) != claim.decoded.envelope.signer:
        return Refusal(Reason.CertificateInvalid, f"the certificate of {body.subject} is for another key")
    if body.role != trust_pb2.ROLE_OPERATOR:
        return Refusal(Reason.RoleForbidden, f"{body.subject} is no operator and may not allocate")
    if body.federation != here.federation:
        return Refusal(Reason.RoleForbidden, f"{body.subject} belongs to federation {body.federation.hex()}")
    private = claim.asset.registration.sharing.privacy_level == ledger_pb2.PRIVACY_LEVEL_PRIVATE
    private = private and not claim.asset_changed
    if (private or claim.operation.privacy_level == ledger_pb2.PRIVACY_LEVEL_PRIVATE) and (
        body.cluster_uid != here.cluster_uid or body.cluster != here.cluster
    ):
        text = f"{body.subject} is of cluster {body.cluster}; a Private allocation is for the owner's cluster alone"
        return Refusal(Reason.PrivacyForbidden, text)
    return None


def check_window(claim: Claim) -> Refusal | None:
    """The lease runs, is as long as signed, was granted within the signed time, and no older record comes back."""
    record, operation = claim.record, claim.operation
    if record.state != ledger_pb2.ALLOCATION_STATE_ACTIVE:
        return Refusal(Reason.AllocationEnded, "the ledger says that the allocation has ended")
    if record.expires_ms - record.granted_ms != operation.lease_seconds * 1000 or not operation.lease_seconds:
        return Refusal(Reason.LeaseInvalid, "the record's lease is not the signed one")
    left = claim.decoded.operation.valid_until_ms - record.granted_ms
    if not 0 <= left <= operations.VALIDITY_MS:
        return Refusal(Reason.Expired, "the operation was committed outside its validity")
    if record.granted_ms > claim.now_ms + CLOCK_SKEW_MS:
        text = f"granted {(record.granted_ms - claim.now_ms) // 1000} s in the future: set this node's clock"
        return Refusal(Reason.LeaseInvalid, text)
    if record.expires_ms <= claim.now_ms:
        return Refusal(Reason.Expired, "the lease has ended")
    if record.height < max(1, claim.seen_height):
        text = f"height {record.height} is older than {claim.seen_height}, seen before for this allocation"
        return Refusal("HeightRegressed", text)
    return None


def check_limits(claim: Claim) -> Refusal | None:
    """This node's trust score and the asset's price are within what the tenant signed."""
    operation, asset = claim.operation, claim.asset
    score = claim.nodes[claim.here.key_id].trust_score if claim.here.key_id in claim.nodes else 0
    if not claim.seen_height and score + SCORE_DRIFT < operation.min_trust_score:
        text = f"this node's trust score {score} is far below the tenant's limit {operation.min_trust_score}"
        return Refusal(Reason.TrustTooLow, text)
    if not operation.max_price_per_hour or claim.asset_changed:
        return None
    registration = asset.registration
    try:
        limit = quantities.parse_grains(operation.max_price_per_hour)
        whole = quantities.parse_grains(registration.sharing.price_per_hour or "0")
        price = quantities.hourly_price(whole, operation.amount, registration.capacity)
    except quantities.QuantityInvalid as error:
        return Refusal(Reason.Malformed, str(error))
    if price > limit:
        text = f"{operation.amount} of {registration.name} cost {price} grains an hour, the tenant's limit is {limit}"
        return Refusal(Reason.PriceTooHigh, text)
    return None


def check_trust(claim: Claim) -> Refusal | None:
    """The signer's trust score reaches what this node asks for of those it lets in."""
    if not claim.seen_height and claim.signer.trust_score < claim.here.minimum_trust:
        score, least = claim.signer.trust_score, claim.here.minimum_trust
        return Refusal(Reason.TrustTooLow, f"the signer's trust score {score} is below this node's minimum {least}")
    return None


def check_signature(claim: Claim) -> Refusal | None:
    """FALCON-1024 over operation and tickets, by the certified key."""
    envelope = claim.decoded.envelope
    body = trust_pb2.CertificateBody.FromString(claim.signer.certificate.body)
    parts = operations.signed_parts(envelope)
    if falcon.verify(body.subject_key, envelope.signature, operations.SIGNATURE_DOMAIN, *parts):
        return None
    return Refusal(Reason.BadSignature, f"the FALCON-1024 signature is not {body.subject}'s over this operation")


CHECKS: Final[tuple[Check, ...]] = (
    check_form,
    check_address,
    check_certificate,
    check_window,
    check_limits,
    check_trust,
    check_signature,
)
"""The order matters to nobody's safety, but to cost and to the reason that people see."""


@lru_cache(maxsize=256)
def _certified(certificate: bytes, root_public: bytes) -> tuple[str, trust_pb2.CertificateBody | None]:
    """(problem, None) or ("", body), whenever it holds. Operators are few and sign much: each is verified once."""
    try:
        parsed = trust_pb2.Certificate.FromString(certificate)
        return "", certificates.verify(parsed, root_public, certificates.decode(parsed).not_before)
    except certificates.CertificateInvalid as error:
        return str(error), None
