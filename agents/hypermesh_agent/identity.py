"""Who this node is: its key, what TrustChain certified about it, and how these papers reach the agent.

The papers are fetched by a short-lived process (`enrolling`), because opening key files and making certificate requests
needs a library of 10 MB that nothing else here does. They come back over a pipe and are never written in the clear.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import sys
from dataclasses import dataclass, field
from ipaddress import IPv6Network

from hypermesh import addressing, falcon
from hypermesh.v1 import trust_pb2

from .config import AgentConfig


class IdentityError(Exception):
    """The node has no usable key or certificate; the message, or the log before it, names the remedy."""


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """name: Kubernetes node; ip: its address for peers; key_id: 32 bytes; federation: 5; prefix: the node's /88."""

    name: str
    ip: str
    keypair: falcon.KeyPair = field(repr=False)
    key_id: bytes
    certificate: trust_pb2.Certificate = field(repr=False)
    federation: bytes
    cluster: int
    counter: int
    cluster_uid: str
    prefix: IPv6Network

    @classmethod
    def certified(cls, name: str, ip: str, keypair: falcon.KeyPair, certificate: trust_pb2.Certificate) -> NodeIdentity:
        """From a certificate that was verified already. Raises IdentityError when it is for another key."""
        body = trust_pb2.CertificateBody.FromString(certificate.body)
        if body.subject_key != keypair.public:
            raise IdentityError(f"node {name}: the certificate is for another key; enrol again")
        key_id = keypair.key_id()
        return cls(
            name=name,
            ip=ip,
            keypair=keypair,
            key_id=key_id,
            certificate=certificate,
            federation=body.federation,
            cluster=body.cluster,
            counter=body.node_counter,
            cluster_uid=body.cluster_uid,
            prefix=addressing.node_prefix(body.federation, body.cluster, key_id, body.node_counter),
        )


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """The node's TLS key and chain (leaf first) and the root that peers are checked against, all PEM."""

    key_pem: bytes = field(repr=False)
    chain_pem: bytes
    root_pem: bytes


@dataclass(frozen=True, slots=True)
class Papers:
    """All that the agent needs to be this node. renew_at: Unix seconds; PEM is bytes."""

    keypair: falcon.KeyPair = field(repr=False)
    certificate: trust_pb2.Certificate = field(repr=False)
    tls: TlsIdentity = field(repr=False)
    renew_at: float

    def encode(self) -> str:
        """One line for the pipe between the two processes."""
        parts = {
            "keypair": self.keypair.encode(),
            "certificate": self.certificate.SerializeToString(deterministic=True),
            "tlsKey": self.tls.key_pem,
            "tlsChain": self.tls.chain_pem,
            "tlsRoot": self.tls.root_pem,
        }
        texts = {name: base64.b64encode(part).decode() for name, part in parts.items()}
        return json.dumps({**texts, "renewAt": self.renew_at})

    @classmethod
    def decode(cls, text: str | bytes) -> Papers:
        """Raises IdentityError for anything that `encode` does not make."""
        try:
            content = json.loads(text)
            renew_at = float(content.pop("renewAt"))
            parts = {name: base64.b64decode(part, validate=True) for name, part in content.items()}
            return cls(
                falcon.KeyPair.decode(parts["keypair"]),
                trust_pb2.Certificate.FromString(parts["certificate"]),
                TlsIdentity(parts["tlsKey"], parts["tlsChain"], parts["tlsRoot"]),
                renew_at,
            )
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
            raise IdentityError(f"the enrolling process handed over no papers ({type(error).__name__})") from error

    @property
    def ends_at(self) -> int:
        """Unix seconds at which the certificate is worth nothing any more."""
        return trust_pb2.CertificateBody.FromString(self.certificate.body).not_after


async def obtain(config: AgentConfig) -> Papers:
    """The node's papers, however long TrustChain takes. Raises IdentityError; the process it starts ends with it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "hypermesh_agent.enrolling"),
        *("--namespace", config.namespace, "--trustchain", config.trustchain),
        *("--token-file", str(config.token_file), "--state", str(config.state)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise IdentityError(f"no identity: enrolling ended with status {process.returncode}, see the line above")
    return Papers.decode(output)
