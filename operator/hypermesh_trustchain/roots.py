"""The federation's two roots: a FALCON-1024 key that signs certificates, an ECDSA P-384 one for today's TLS.

Data flow: `generate` → Secret data → `Root`. Both secrets rest in a Kubernetes Secret, protected by RBAC, by whatever
encryption at rest the cluster has, and wrapped where a key encryption file is given (hypermesh_clients.key_encryption);
a hardware module comes later (docs/concepts/trust.md).
The TLS root is name-constrained (RFC 5280 4.2.1.10) to our node names, this namespace's services and this
cluster's /64: stolen, it can't speak for anything else.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Network

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hypermesh import addressing, falcon

SECRET = "hypermesh-trustchain-root"  # noqa: S105 - the object's name
FALCON_KEY, TLS_KEY, TLS_CERTIFICATE = "falcon.key", "tls.key", "ca.crt"
PRIVATE = (FALCON_KEY, TLS_KEY)
"""What is wrapped where the cluster offers a key encryption file."""
ROOT_LIFETIME = datetime.timedelta(days=3650)
SKEW = datetime.timedelta(minutes=5)
CLUSTER = 1
"""Clusters are numbered by their federation; a federation of its own begins with number 1."""


class RootDamaged(Exception):
    """The stored root can't be used."""


@dataclass(frozen=True, slots=True)
class Root:
    """Both roots in memory; secrets are hidden in repr."""

    falcon: falcon.KeyPair
    tls_key: ec.EllipticCurvePrivateKey = field(repr=False)
    tls_certificate: x509.Certificate

    @property
    def federation(self) -> bytes:
        """5 bytes: hash of the FALCON root key."""
        return addressing.federation_id(self.falcon.public)

    @property
    def prefix(self) -> IPv6Network:
        """This cluster's /64."""
        return addressing.NetworkPrefix(self.federation, CLUSTER).network

    @property
    def ca_pem(self) -> bytes:
        """The TLS root certificate."""
        return self.tls_certificate.public_bytes(serialization.Encoding.PEM)

    def encode(self) -> dict[str, bytes]:
        """The Secret's data."""
        return {
            FALCON_KEY: self.falcon.encode(),
            TLS_KEY: self.tls_key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            TLS_CERTIFICATE: self.ca_pem,
        }

    @classmethod
    def decode(cls, data: Mapping[str, bytes]) -> Root:
        """Of the Secret's data; raises RootDamaged unless all parts are there and belong together."""
        remedy = f"restore Secret {SECRET} from a backup, or empty it to begin a new federation"
        try:
            pair = falcon.KeyPair.decode(data[FALCON_KEY])
            key = serialization.load_pem_private_key(data[TLS_KEY], None)
            certificate = x509.load_pem_x509_certificate(data[TLS_CERTIFICATE])
        except KeyError as error:
            raise RootDamaged(f"Secret {SECRET} lacks {error}; {remedy}") from None
        except (ValueError, TypeError) as error:
            raise RootDamaged(f"Secret {SECRET}: {error}; {remedy}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise RootDamaged(f"Secret {SECRET}: {TLS_KEY} and {TLS_CERTIFICATE} don't belong together; {remedy}")
        return cls(pair, key, certificate)


def generate(namespace: str, now: datetime.datetime) -> Root:
    """A new federation whose services live in `namespace`."""
    pair = falcon.generate()
    key = ec.generate_private_key(ec.SECP384R1())
    federation = addressing.federation_id(pair.public)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "HyperMesh"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"HyperMesh root of federation {federation.hex()}"),
        ]
    )
    permitted: list[x509.GeneralName] = [
        x509.DNSName(addressing.TLS_DOMAIN),
        x509.DNSName(f"{namespace}.svc"),
        x509.IPAddress(addressing.NetworkPrefix(federation, CLUSTER).network),
    ]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + ROOT_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None), critical=True)
        .sign(key, hashes.SHA384())
    )
    return Root(pair, key, certificate)
