"""What no lock file pins: the base and Debian's packages are known of each image, and compared with the last."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from image_build import base, building, engines
from image_build.contents import Contents
from image_build.errors import ImageError


class Store(engines.Buildah):
    """An engine that holds or can pull the images it is given, and notes what it is asked; it builds nothing."""

    def __init__(self, held: dict[str, str], pullable: dict[str, str]) -> None:
        self.held = held
        self.pullable = pullable
        self.asked: list[str] = []

    def image_id(self, name: str) -> str | None:
        return self.held.get(name)

    def digest(self, name: str) -> str:
        return self.held[name].replace("id", "sha256:")

    def tag(self, image_id: str, name: str) -> bool:
        self.held |= {name: image_id} if image_id in self.held.values() else {}
        return self.held.get(name) == image_id

    def pull(self, name: str) -> bool:
        self.asked.append(name)
        self.held |= {name: self.pullable[name]} if name in self.pullable else {}
        return name in self.pullable


PINNED = "registry.test/debian@sha256:" + "b" * 64


def test_a_pinned_base_is_pulled_once_and_never_replaced_by_a_bootstrapped_one(tmp_path: Path) -> None:
    store = Store({}, {PINNED: "id-1"})
    for _ in range(2):
        assert base.ensure(store, tmp_path, PINNED) == base.Base(PINNED, "sha256:-1", None)
    assert store.asked == [PINNED]
    with pytest.raises(ImageError, match="can't be pulled"):
        base.ensure(Store({}, {}), tmp_path, PINNED)


def test_two_versions_of_the_recipe_on_one_machine_keep_one_base_each(tmp_path: Path) -> None:
    """Two checkouts share an engine: neither gives the other a new base, hence a new image, at each build."""
    recipe = hashlib.sha256(Path(base.__file__).read_bytes()).hexdigest()[:8]
    for version, image_id in ((recipe, "id-ours"), ("older", "id-theirs")):
        made = tmp_path / "image-base" / f"{base.SUITE}-{version}"
        made.mkdir(parents=True)
        (made / "buildah.id").write_text(image_id)
    store = Store({base.NAME: "id-theirs", "without a name": "id-ours"}, {})
    assert base.ensure(store, tmp_path).digest == "sha256:-ours"


def test_another_base_under_the_same_name_is_another_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tree is unchanged; only the store's base is a newer one."""
    for name in ("Dockerfile", ".dockerignore"):
        (tmp_path / name).write_text("")
    store, built = Store({base.NAME: "id-1"}, {}), []

    def build(checkout: Path, folder: Path, engine: Any, on: base.Base, from_source: bool) -> str:
        built.append(on.digest)
        return "sha256:image"

    monkeypatch.setattr(building.engines, "choose", lambda wanted: store)
    monkeypatch.setattr(building.context, "files", lambda checkout, rules: [])
    monkeypatch.setattr(building.Path, "glob", lambda self, pattern: [])
    monkeypatch.setattr(building, "_build", build)
    monkeypatch.setattr(building, "_compare", lambda folder, on: None)
    monkeypatch.setattr(building.archive, "pack", lambda layout, name, target: target.write_bytes(b""))
    for identity in ("id-1", "id-1", "id-2"):
        store.held[base.NAME] = identity
        building.make(tmp_path, tmp_path / "cache", None, False, None)
    assert built == ["sha256:-1", "sha256:-2"]
    assert "up to date" in capsys.readouterr().out


def test_what_differs_from_the_last_build_is_told(tmp_path: Path) -> None:
    earlier = Contents("debian@sha256:1", {"libc6": "2.36-9+deb12u9", "mount": "2.38.1-5", "gone": "1"})
    now = Contents("debian@sha256:2", {"libc6": "2.36-9+deb12u10", "mount": "2.38.1-5", "new": "3"})
    assert now.differences(earlier) == [
        "base debian@sha256:1 -> debian@sha256:2",
        "gone 1 -> none",
        "libc6 2.36-9+deb12u9 -> 2.36-9+deb12u10",
        "new none -> 3",
    ]
    assert now.differences(now) == []
    now.write(tmp_path / "contents.json")
    assert Contents.read(tmp_path / "contents.json") == now
    assert Contents.read(tmp_path / "nothing") is None
