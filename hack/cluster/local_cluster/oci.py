"""Container images as tars of an OCI image layout (OCI image specification 1.1): made from static files, and read.

The bytes of an image made here depend on its content only (no times, no user names): same input, same image.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MEDIA = "application/vnd.oci.image"


def image(name: str, files: Mapping[str, bytes], entrypoint: Sequence[str], machine: str) -> bytes:
    """A tar that `ctr images import` takes: an image `name` with executable `files` (path -> content)."""
    layer = _tar({path.lstrip("/"): content for path, content in files.items()}, mode=0o755)
    config = _json(
        {
            "architecture": ARCHITECTURES[machine],
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint), "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_MEDIA}.manifest.v1+json",
            "config": _descriptor(f"{_MEDIA}.config.v1+json", config),
            "layers": [_descriptor(f"{_MEDIA}.layer.v1.tar", layer)],
        }
    )
    annotations = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    entry = {**_descriptor(f"{_MEDIA}.manifest.v1+json", manifest), "annotations": annotations}
    index = _json({"schemaVersion": 2, "mediaType": f"{_MEDIA}.index.v1+json", "manifests": [entry]})
    blobs = {f"blobs/sha256/{_digest(blob)[7:]}": blob for blob in (layer, config, manifest)}
    return _tar({"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": index, **blobs}, mode=0o644)


def images_in(path: Path) -> dict[str, str]:
    """Image names in a tar and their manifest digests; empty when the tar is no OCI layout with named images."""
    with tarfile.open(path) as tar:
        try:
            file = tar.extractfile("index.json")
        except KeyError:
            return {}
        index = json.loads(file.read()) if file else {"manifests": []}
    named = [(entry.get("annotations", {}), entry["digest"]) for entry in index["manifests"]]
    name = "io.containerd.image.name"
    return {annotations[name]: digest for annotations, digest in named if name in annotations}


def copy_without(path: Path, present: Collection[str], out: IO[bytes]) -> None:
    """Copies a tar to `out` but for the blobs whose digest the reader already has."""
    unwanted = {f"blobs/{digest.replace(':', '/')}" for digest in present}
    with tarfile.open(path) as tar, tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as copy:
        for member in tar:
            if member.name not in unwanted:
                copy.addfile(member, tar.extractfile(member) if member.isfile() else None)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True).encode()


def _tar(files: Mapping[str, bytes], mode: int) -> bytes:
    """A plain tar of files and the directories above them, all of root, all of the year 1970."""
    directories = sorted({str(parent) for path in files for parent in _parents(path)})
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for directory in directories:
            member = tarfile.TarInfo(directory)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(content), mode
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]
