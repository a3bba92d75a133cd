"""From an engine's OCI layout to the tar that clusters load, on a layout made here."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from image_build import archive
from image_build.errors import ImageError

NAME = "docker.io/library/thing:dev"
LAYERS = (b"lower layer " * 1000, b"upper layer " * 10)


def put(layout: Path, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    (layout / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    (layout / "blobs" / "sha256" / digest).write_bytes(content)
    return f"sha256:{digest}"


def make_layout(folder: Path, contents: Sequence[bytes] = LAYERS) -> Path:
    """A layout as buildah writes it: gzip layers, their uncompressed digests in the configuration."""
    layout = folder / "layout"
    plain = [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in contents]
    config = put(layout, json.dumps({"rootfs": {"type": "layers", "diff_ids": plain}}).encode())
    packed = [gzip.compress(layer, mtime=0) for layer in contents]
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    layers = [{"mediaType": kind, "digest": put(layout, data), "size": len(data)} for data in packed]
    manifest = {"schemaVersion": 2, "config": {"digest": config, "size": 1}, "layers": layers}
    entry = {"digest": put(layout, json.dumps(manifest).encode()), "annotations": {archive.REFERENCE: NAME}}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return layout


def contents(tar: Path) -> dict[str, bytes]:
    with tarfile.open(tar) as opened:
        members = [(member.name, opened.extractfile(member)) for member in opened]
        return {name: file.read() for name, file in members if file is not None}


def test_inflating_keeps_every_layers_content_under_its_plain_digest(tmp_path: Path) -> None:
    layout = make_layout(tmp_path)
    archive.inflate(layout, NAME)
    manifest = archive.read_json(archive.blob(layout, archive.descriptor(layout, NAME)["digest"]))
    assert [archive.blob(layout, layer["digest"]).read_bytes() for layer in manifest["layers"]] == list(LAYERS)
    assert [layer["size"] for layer in manifest["layers"]] == [len(layer) for layer in LAYERS]
    assert {layer["mediaType"] for layer in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}


def test_inflating_twice_changes_nothing(tmp_path: Path) -> None:
    layout = make_layout(tmp_path)
    archive.inflate(layout, NAME)
    first = archive.descriptor(layout, NAME)
    archive.inflate(layout, NAME)
    assert archive.descriptor(layout, NAME) == first


def test_a_layer_that_is_not_what_the_configuration_says_is_refused(tmp_path: Path) -> None:
    layout = make_layout(tmp_path)
    manifest = archive.read_json(archive.blob(layout, archive.descriptor(layout, NAME)["digest"]))
    archive.blob(layout, manifest["layers"][1]["digest"]).write_bytes(gzip.compress(b"something else"))
    with pytest.raises(ImageError, match="build again"):
        archive.inflate(layout, NAME)


def test_the_tar_holds_the_image_alone_named_for_containerd_and_is_reproducible(tmp_path: Path) -> None:
    layout = make_layout(tmp_path)
    stray = put(layout, b"a layer of an earlier build")
    archive.inflate(layout, NAME)
    archive.pack(layout, NAME, tmp_path / "one.tar")
    archive.pack(layout, NAME, tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    inside = contents(tmp_path / "one.tar")
    (entry,) = json.loads(inside["index.json"])["manifests"]
    assert entry["annotations"][archive.CONTAINERD_NAME] == NAME
    assert inside["blobs/sha256/" + entry["digest"].removeprefix("sha256:")]
    blobs = {name: data for name, data in inside.items() if name.startswith("blobs/")}
    assert all(hashlib.sha256(data).hexdigest() == Path(name).name for name, data in blobs.items())
    assert len(blobs) == 4
    assert not archive.blob(layout, stray).exists()


def test_a_thin_tar_leaves_out_what_the_importer_has(tmp_path: Path) -> None:
    layout = make_layout(tmp_path)
    archive.inflate(layout, NAME)
    archive.pack(layout, NAME, tmp_path / "whole.tar")
    lower = f"sha256:{hashlib.sha256(LAYERS[0]).hexdigest()}"
    archive.thin(tmp_path / "whole.tar", tmp_path / "thin.tar", frozenset({lower, "sha256:unknown"}))
    missing = contents(tmp_path / "whole.tar").keys() - contents(tmp_path / "thin.tar").keys()
    assert missing == {"blobs/sha256/" + lower.removeprefix("sha256:")}


def test_an_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="other:dev"):
        archive.descriptor(make_layout(tmp_path), "docker.io/library/other:dev")


def layer(files: dict[str, bytes]) -> bytes:
    """A layer's tar, with names as engines write them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


def test_a_file_is_read_from_the_uppermost_layer_that_has_it(tmp_path: Path) -> None:
    stack = [layer({"etc/a": b"old", "etc/b": b"b"}), layer({"./etc/a": b"new"}), layer({"etc/c": b"c"})]
    layout = make_layout(tmp_path, stack)
    archive.inflate(layout, NAME)
    assert [archive.read_file(layout, NAME, name) for name in ("etc/a", "etc/b", "etc/c")] == [b"new", b"b", b"c"]
    with pytest.raises(ImageError, match="no file /etc/d"):
        archive.read_file(layout, NAME, "etc/d")
