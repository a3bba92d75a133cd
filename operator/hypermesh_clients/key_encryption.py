"""Private keys in Secrets, wrapped under a key that is in no Secret: etcd and its backups alone open nothing.

    HYPERMESH_KEY_ENCRYPTION_FILE (a volume, such as a vault's or KMS's through its CSI driver) -> Wrapping
    fill_once -> entries wrapped (hypermesh.keyfile, AES-256-GCM) -> opened in memory

Without the file keys rest as they are, protected by RBAC and the cluster's encryption at rest. Given later, it wraps
what is there at the next start. Each entry has a wrapping key of its own, so one can't be passed off as another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hypermesh import digests, keyfile
from hypermesh_clients.kube import Conflict, Kube
from hypermesh_clients.kube_resources import SECRETS
from hypermesh_clients.kube_secrets import contents, encoded, fill_once

VARIABLE = "HYPERMESH_KEY_ENCRYPTION_FILE"


class KeyEncryptionUnusable(Exception):
    """The key encryption file is missing, or isn't the one that a Secret was wrapped under."""


@dataclass(frozen=True, slots=True)
class Wrapping:
    """Of the `entries` of one Secret. material: content of the key encryption file, None without one."""

    secret: str
    entries: tuple[str, ...]
    material: bytes | None = field(default=None, repr=False)

    @classmethod
    def of(cls, secret: str, entries: tuple[str, ...], environment: Mapping[str, str]) -> Wrapping:
        """As the environment says. Raises KeyEncryptionUnusable."""
        path = environment.get(VARIABLE)
        if not path:
            return cls(secret, entries)
        try:
            material = Path(path).read_bytes()
        except OSError as error:
            raise KeyEncryptionUnusable(
                f"{VARIABLE}: {error}. See the volume of keyEncryption in the chart."
            ) from error
        if len(material) < keyfile.SECRET_BYTES:
            raise KeyEncryptionUnusable(
                f"{VARIABLE}: {path} has {len(material)} bytes: {keyfile.SECRET_BYTES} random ones are needed"
            )
        return cls(secret, entries, material)

    def bare(self, data: Mapping[str, bytes]) -> bool:
        """Whether an entry that should be wrapped is not."""
        present = [data[name] for name in self.entries if name in data]
        return self.material is not None and not all(keyfile.is_wrapped(value) for value in present)

    def close(self, data: Mapping[str, bytes]) -> dict[str, bytes]:
        """`data` as it rests: entries wrapped, those that are already and all others as they are."""
        return {name: self._closed(name, value) for name, value in data.items()}

    def open(self, data: Mapping[str, bytes]) -> dict[str, bytes]:
        """`data` as it is used. Raises KeyEncryptionUnusable."""
        return {name: self._opened(name, value) for name, value in data.items()}

    def _closed(self, name: str, value: bytes) -> bytes:
        if self.material is None or name not in self.entries or keyfile.is_wrapped(value):
            return value
        return keyfile.wrap(value, self._kek(name, self.material))

    def _opened(self, name: str, value: bytes) -> bytes:
        if name not in self.entries or not keyfile.is_wrapped(value):
            return value
        if self.material is None:
            raise KeyEncryptionUnusable(
                f"Secret {self.secret}: {name} is wrapped: give the key encryption file it was wrapped under "
                "(keyEncryption in the chart)"
            )
        try:
            return keyfile.unwrap(value, self._kek(name, self.material))
        except (keyfile.KeyFileInvalid, keyfile.WrongKey) as error:
            raise KeyEncryptionUnusable(
                f"Secret {self.secret}: {name} doesn't open with this key encryption file, or was changed: restore "
                "the file (keyEncryption in the chart) or the Secret"
            ) from error

    def _kek(self, name: str, material: bytes) -> bytes:
        place = digests.digest("key-encryption", self.secret.encode(), name.encode())
        return keyfile.derive_kek(material, place)


async def fill_wrapped(
    kube: Kube, namespace: str, wrapping: Wrapping, key: str, make: Callable[[], Mapping[str, bytes]]
) -> dict[str, bytes]:
    """As kube_secrets.fill_once, with the entries wrapped at rest. Raises KeyEncryptionUnusable, KubeErrors."""
    data = await fill_once(kube, namespace, wrapping.secret, key, lambda: wrapping.close(make()))
    while wrapping.bare(data):
        present = await kube.get(SECRETS, wrapping.secret, namespace)
        data = contents(present)
        wrapping.open(data)  # a file that doesn't open what is wrapped must wrap nothing
        data = wrapping.close(data)
        version = {"resourceVersion": present["metadata"]["resourceVersion"]}
        try:
            await kube.merge_patch(SECRETS, wrapping.secret, {"metadata": version, "data": encoded(data)}, namespace)
        except Conflict:
            data = contents(present)  # somebody wrote in between: look again
    return wrapping.open(data)
