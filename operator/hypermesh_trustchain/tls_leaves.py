"""TLS certificates for nodes and services: the requester brings a key, TrustChain alone decides the names.

A node's only name is derived from its /88, so a client that has a proxy address knows whom to expect; a
service's names are its Kubernetes service names. Whatever names the request carries are ignored.
"""

from __future__ import annotations

import datetime
from ipaddress import IPv6Network

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hypermesh import addressing
from hypermesh_trustchain.refusals import EnrolmentRefused, Reason
from hypermesh_trustchain.roots import SKEW, Root

CURVES = (ec.SECP256R1, ec.SECP384R1)
MAX_CSR_BYTES = 8192


def requested_key(der: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a DER PKCS#10 request that its own key signed. Raises EnrolmentRefused (CsrInvalid)."""

    def refused(problem: str) -> EnrolmentRefused:
        return EnrolmentRefused(
            Reason.CSR_INVALID, f"{problem}; send a PKCS#10 request for an ECDSA P-256 or P-384 key"
        )

    if not 0 < len(der) <= MAX_CSR_BYTES:
        raise refused(f"a request of {len(der)} bytes isn't within 1 to {MAX_CSR_BYTES}")
    try:
        request = x509.load_der_x509_csr(der)
        key = request.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVES):
            raise refused("the requested key isn't ECDSA P-256 or P-384")
        valid = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise refused(f"the request can't be read ({type(error).__name__})") from error
    if not valid:
        raise refused("the request isn't signed by the key it asks for")
    return key


def node_names(prefix: IPv6Network) -> list[str]:
    """The one TLS name of the node that owns the /88 `prefix`."""
    return [addressing.tls_name(prefix)]


def service_names(service: str, namespace: str) -> list[str]:
    """The names under which a service is reached within a cluster of whatever domain."""
    return [f"{service}.{namespace}.svc"]


def issue(
    root: Root,
    key: ec.EllipticCurvePublicKey,
    names: list[str],
    role: str,
    now: datetime.datetime,
    lifetime: datetime.timedelta,
) -> bytes:
    """PEM of a leaf for `key` with exactly the DNS `names`; never outlives the root."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "HyperMesh"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(root.tls_certificate.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(min(now + lifetime, root.tls_certificate.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=False,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.tls_key.public_key()), critical=False)
        .sign(root.tls_key, hashes.SHA384())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)
