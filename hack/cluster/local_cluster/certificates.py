"""The cluster's certificates: one authority, one leaf per component, made by openssl(1), kept with the state.

ECDSA P-256, since kube-apiserver and client-go speak it and a key costs a millisecond.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

DAYS = "3650"
COMMAND_SECONDS = 30
_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


@dataclass(frozen=True)
class Leaf:
    """A certificate to make: file stem, subject, and the names and addresses it serves (none: a client's)."""

    stem: str
    user: str
    group: str = ""
    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """The subject as openssl takes it; Kubernetes reads O as group and CN as user."""
        return (f"/O={self.group}" if self.group else "") + f"/CN={self.user}"

    @property
    def extensions(self) -> str:
        """An openssl extension section."""
        lines = ["basicConstraints=CA:FALSE", "keyUsage=digitalSignature", "extendedKeyUsage=clientAuth,serverAuth"]
        served = [f"DNS:{name}" for name in self.names] + [f"IP:{address}" for address in self.addresses]
        return "\n".join([*lines, *([f"subjectAltName={','.join(served)}"] if served else [])]) + "\n"


class Authority:
    """A certificate authority in a directory: `ca.crt`, `ca.key`, and `<stem>.crt`, `<stem>.key` for each leaf."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def certificate(self) -> Path:
        """The authority's own certificate, which all others are checked against."""
        return self.directory / "ca.crt"

    def ensure(self) -> None:
        """Makes the authority and the service-account signing key, unless they are there."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.certificate.exists():
            extension = ["-addext", "keyUsage=critical,keyCertSign,digitalSignature"]
            subject = ["-subj", "/CN=hypermesh-local-cluster", "-days", DAYS, *extension]
            self._openssl("req", "-x509", *_KEY, *subject, "-keyout", "ca.key", "-out", "ca.crt")
        if not (self.directory / "service-account.pub").exists():
            self._openssl(
                "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "service-account.key"
            )
            self._openssl("pkey", "-in", "service-account.key", "-pubout", "-out", "service-account.pub")

    def issue(self, leaf: Leaf) -> None:
        """Makes a leaf's key and certificate, unless they are there."""
        if self.path(leaf.stem, "crt").exists():
            return
        stem = leaf.stem
        self._openssl("req", "-new", *_KEY, "-subj", leaf.subject, "-keyout", f"{stem}.key", "-out", f"{stem}.csr")
        (self.directory / f"{stem}.ext").write_text(leaf.extensions)
        signer = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAserial", f"{stem}.srl", "-CAcreateserial"]
        output = ["-days", DAYS, "-extfile", f"{stem}.ext", "-out", f"{stem}.crt"]
        self._openssl("x509", "-req", "-in", f"{stem}.csr", *signer, *output)
        for suffix in ("csr", "ext", "srl"):
            self.path(stem, suffix).unlink(missing_ok=True)

    def path(self, stem: str, suffix: str) -> Path:
        """Where a leaf's file is."""
        return self.directory / f"{stem}.{suffix}"

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(
            ["openssl", *arguments],
            cwd=self.directory,
            check=True,
            capture_output=True,
            timeout=COMMAND_SECONDS,
        )
