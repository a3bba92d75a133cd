"""TLS papers of a node, as TrustChain issues them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hypermesh_agent.identity import TlsIdentity


def tls_identity(name: str) -> TlsIdentity:
    """A root and a node certificate for exactly this DNS name, as TrustChain issues them."""
    now = datetime.now(UTC)
    root_key, key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    authority = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test root")])

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(authority).public_key(public)
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(hours=1))
        return made.not_valid_after(now + timedelta(hours=1))

    constraints = x509.BasicConstraints(ca=True, path_length=0)
    root = builder(authority, root_key.public_key()).add_extension(constraints, True).sign(root_key, hashes.SHA384())
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    leaf = builder(x509.Name([]), key.public_key()).add_extension(names, True).sign(root_key, hashes.SHA384())
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return TlsIdentity(secret, leaf.public_bytes(pem), root.public_bytes(pem))
