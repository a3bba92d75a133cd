"""From an OCI layout folder to one tar that `ctr images import`, podman and docker load (OCI image layout 1.0).

The folder keeps the layers between builds, uncompressed: an engine asked to write an image there looks for each
layer's uncompressed digest first and copies only what is new (0.05 s instead of 4 s of gzip for the whole image).
The tar is a plain copy, and its importer has nothing to inflate.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from image_build.errors import ImageError

# containerd names an imported image by this annotation, without the "import-DATE" prefix of `ctr`.
CONTAINERD_NAME = "io.containerd.image.name"
GZIP = "+gzip"
CHUNK_BYTES = 1 << 20
REFERENCE = "org.opencontainers.image.ref.name"


def blob(layout: Path, digest: str) -> Path:
    """Where a layout keeps the content of `digest` ("sha256:…")."""
    algorithm, _, value = digest.partition(":")
    return layout / "blobs" / algorithm / value


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def descriptor(layout: Path, name: str) -> dict[str, Any]:
    """The manifest descriptor of the image `name` in a layout; ImageError when the layout holds no such image."""
    for entry in read_json(layout / "index.json")["manifests"]:
        annotations = entry.get("annotations", {})
        if name in (annotations.get(REFERENCE), annotations.get(CONTAINERD_NAME)):
            return dict(entry)
    raise ImageError(f"{layout} holds no image {name}: remove the folder and build again")


def inflate(layout: Path, name: str) -> None:
    """Replace the gzip layers of image `name` by their uncompressed form; ImageError when one is not what it says."""
    entry = descriptor(layout, name)
    manifest = read_json(blob(layout, entry["digest"]))
    plain = read_json(blob(layout, manifest["config"]["digest"]))["rootfs"]["diff_ids"]
    for layer, digest in zip(manifest["layers"], plain, strict=True):
        if layer["mediaType"].endswith(GZIP):
            _inflate_blob(blob(layout, layer["digest"]), blob(layout, digest))
            layer |= {"mediaType": layer["mediaType"].removesuffix(GZIP), "digest": digest}
            layer["size"] = blob(layout, digest).stat().st_size
    content = json.dumps(manifest, sort_keys=True).encode()
    entry |= {"digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}
    blob(layout, entry["digest"]).write_bytes(content)
    index = {"schemaVersion": 2, "manifests": [entry]}
    (layout / "index.json").write_text(json.dumps(index))


def _inflate_blob(source: Path, target: Path) -> None:
    partial, digest = target.with_suffix(".partial"), hashlib.sha256()
    with gzip.open(source) as compressed, partial.open("wb") as written:
        while chunk := compressed.read(CHUNK_BYTES):
            digest.update(chunk)
            written.write(chunk)
    if digest.hexdigest() != target.name:
        raise ImageError(f"layer {source.name} inflates to {digest.hexdigest()}, not to {target.name}: build again")
    partial.replace(target)


def digests(layout: Path, manifest: dict[str, Any]) -> list[str]:
    """The digests an image consists of: manifest, configuration, layers from the lowest up."""
    content = read_json(blob(layout, manifest["digest"]))
    return [manifest["digest"], content["config"]["digest"], *(layer["digest"] for layer in content["layers"])]


def read_file(layout: Path, name: str, path: str) -> bytes:
    """A file of image `name`, from its uppermost layer that has it (uncompressed layers); ImageError when none has."""
    manifest = read_json(blob(layout, descriptor(layout, name)["digest"]))
    for layer in reversed(manifest["layers"]):
        with tarfile.open(blob(layout, layer["digest"])) as opened:
            found = next((member for member in opened if member.name.removeprefix("./") == path), None)
            content = opened.extractfile(found) if found else None
            if content is not None:
                return content.read()
    raise ImageError(f"image {name} has no file /{path}: see the Dockerfile")


def prune(layout: Path, keep: list[str]) -> None:
    """Remove the blobs of earlier builds that this image does not use."""
    kept = {blob(layout, digest) for digest in keep}
    for path in (layout / "blobs").glob("*/*"):
        if path not in kept:
            path.unlink()


def pack(layout: Path, name: str, target: Path) -> None:
    """Write the image `name` of a layout to `target`, complete or not at all; the same image gives the same bytes."""
    manifest = descriptor(layout, name)
    parts = digests(layout, manifest)
    tag = name.rpartition(":")[2]
    entry = {**manifest, "annotations": {CONTAINERD_NAME: name, REFERENCE: tag}}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry]}
    partial = target.with_suffix(".partial")
    with tarfile.open(partial, "w") as tar:
        _add(tar, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        _add(tar, "index.json", json.dumps(index, sort_keys=True).encode())
        for digest in parts:
            path = blob(layout, digest)
            header = tarfile.TarInfo(str(path.relative_to(layout)))
            header.size = path.stat().st_size
            with path.open("rb") as content:
                tar.addfile(header, content)
    partial.replace(target)
    prune(layout, parts)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    tar.addfile(header, io.BytesIO(content))


def thin(source: Path, target: Path, present: frozenset[str]) -> int:
    """Copy an image tar without the layers an importer has already (`present`: digests); returns the bytes written."""
    partial = target.with_suffix(".partial")
    with tarfile.open(source) as whole, tarfile.open(partial, "w") as tar:
        for member in whole:
            if f"sha256:{Path(member.name).name}" not in present:
                tar.addfile(member, whole.extractfile(member))
    partial.replace(target)
    return target.stat().st_size
