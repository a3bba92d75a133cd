"""Images, manifests and small decisions of the local cluster."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from local_cluster import manifests, oci, preflight
from local_cluster.addresses import Plan
from local_cluster.network import cluster_routes
from local_cluster.preflight import PACKAGES, missing_packages
from local_cluster.state import ClusterError
from local_cluster.status import table
from local_cluster.volumes import empty, released

PLAN = Plan.of(Path("/checkout/build/cluster"))


def test_an_image_depends_on_its_content_only_and_names_its_blobs_truly() -> None:
    first = oci.image("localhost/a:1", {"/bin/a": b"program"}, ["/bin/a"], "x86_64")
    assert first == oci.image("localhost/a:1", {"/bin/a": b"program"}, ["/bin/a"], "x86_64")
    assert first != oci.image("localhost/a:1", {"/bin/a": b"another"}, ["/bin/a"], "x86_64")
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        blobs = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        content = {name: file.read() for name, file in blobs.items() if file is not None}
    for name, blob in content.items():
        if name.startswith("blobs/sha256/"):
            assert hashlib.sha256(blob).hexdigest() == name.removeprefix("blobs/sha256/")
    index = json.loads(content["index.json"])
    assert index["manifests"][0]["annotations"]["io.containerd.image.name"] == "localhost/a:1"
    manifest = json.loads(content["blobs/sha256/" + index["manifests"][0]["digest"][7:]])
    layer = content["blobs/sha256/" + manifest["layers"][0]["digest"][7:]]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        assert [(member.name, member.mode) for member in tar if member.isfile()] == [("bin/a", 0o755)]


def test_an_image_tar_is_read_back_and_copied_without_what_is_known(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(oci.image("localhost/a:1", {"/bin/a": b"program"}, ["/bin/a"], "x86_64"))
    ((name, digest),) = oci.images_in(path).items()
    assert name == "localhost/a:1"

    def members(known: set[str]) -> set[str]:
        copy = io.BytesIO()
        oci.copy_without(path, known, copy)
        with tarfile.open(fileobj=io.BytesIO(copy.getvalue())) as tar:
            return {member.name for member in tar if member.isfile()}

    assert members(set()) - members({digest}) == {f"blobs/sha256/{digest[7:]}"}
    assert members({digest}) < members(set())


def test_a_tar_without_an_index_names_no_image(tmp_path: Path) -> None:
    path = tmp_path / "docker.tar"
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("manifest.json"))
    assert oci.images_in(path) == {}


def test_every_object_is_ipv6_and_local() -> None:
    text = json.dumps(manifests.everything(PLAN))
    assert str(PLAN.dns_service) in text
    assert "IPv4" not in text
    images = [part.split('"')[0] for part in text.split('"image": "')[1:]]
    assert images
    assert all(image.startswith("localhost/") for image in images)


def test_volumes_bind_on_any_node() -> None:
    terms = manifests.volume(1)["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert terms == [{"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]}]


def test_only_our_released_volumes_are_offered_again() -> None:
    def volume(name: str, storage_class: str, phase: str) -> dict[str, object]:
        return {"metadata": {"name": name}, "spec": {"storageClassName": storage_class}, "status": {"phase": phase}}

    items = [volume("a", "standard", "Released"), volume("b", "standard", "Bound"), volume("c", "other", "Released")]
    assert released({"items": items}) == ["a"]


def test_emptying_a_volume_follows_no_link_out_of_it(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    inside = tmp_path / "volume"
    (inside / "deep").mkdir(parents=True)
    (inside / "deep" / "file").touch()
    (inside / "link").symlink_to(outside)
    empty(inside)
    assert list(inside.iterdir()) == []
    assert (outside / "kept").exists()


def test_routes_lead_to_every_other_node_and_to_services_from_outside() -> None:
    outside = cluster_routes(PLAN, "link", 2)
    assert len(outside) == 3
    assert any(str(PLAN.services) in route for route in outside)
    inside = cluster_routes(PLAN, "eth0", 3, own=2)
    assert len(inside) == 2
    assert not any(str(PLAN.pods_of(2)) in route for route in inside)


def test_who_is_not_root_is_told_what_else_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ClusterError, match=r"needs root.*CLUSTER=current.*CLUSTER=kind"):
        preflight.require_root()


def test_missing_packages_are_named_once() -> None:
    assert missing_packages(lambda _: True) == []
    assert missing_packages(lambda needed: needed not in {"nsenter", "pivot_root"}) == ["util-linux"]
    assert missing_packages(lambda _: False) == sorted(set(PACKAGES.values()))


def test_the_status_table_says_what_to_do_when_there_is_nothing() -> None:
    assert "make cluster-up" in table({"machines": [], "directory": "/x"})
