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

    def __init__(self, held: dict[str, str], pullable: dict[str, str] | None = None) -> None:
        self.held = held
        self.pullable = pullable or {}
        self.asked: list[str] = []

    def image_id(self, name: str) -> str | None:
        return self.held.get(name)

    def digest(self, stored: str, name: str) -> str:
        return self.held[stored].replace("id", "sha256:")

    def tag(self, image_id: str, name: str) -> bool:
        self.held |= {name: image_id} if image_id in self.held.values() else {}
        return self.held.get(name) == image_id

    def pull(self, name: str) -> bool:
        self.asked.append(name)
        self.held |= {name: self.pullable[name]} if name in self.pullable else {}
        return name in self.pullable


PINNED = "registry.test/debian@sha256:" + "b" * 64


def bootstrapped(cache: Path, image_id: str, version: str = "") -> None:
    """As if this version of the recipe, or another, had made that image on this machine."""
    recipe = version or hashlib.sha256(Path(base.__file__).read_bytes()).hexdigest()[:8]
    made = cache / "image-base" / f"{base.SUITE}-{recipe}"
    made.mkdir(parents=True)
    (made / "buildah.id").write_text(image_id)


def test_a_pinned_base_is_pulled_once_and_never_replaced_by_a_bootstrapped_one(tmp_path: Path) -> None:
    store = Store({}, {PINNED: "id-1"})
    for _ in range(2):
        assert base.ensure(store, tmp_path, PINNED) == base.Base(PINNED, f"{base.KEPT}:id-1", "sha256:-1", None)
    assert store.asked == [PINNED]
    with pytest.raises(ImageError, match="can't be pulled"):
        base.ensure(Store({}), tmp_path, PINNED)


def test_asked_for_by_name_the_usual_base_is_never_a_bootstrapped_one(tmp_path: Path) -> None:
    bootstrapped(tmp_path, "id-made")
    assert base.ensure(Store({base.NAME: "id-made"}), tmp_path).apt_sources is not None
    for held in ({}, {base.NAME: "id-made"}):
        with pytest.raises(ImageError, match="can't be pulled"):
            base.ensure(Store(dict(held)), tmp_path, base.NAME)
        pulled = base.ensure(Store(dict(held), {base.NAME: "id-real"}), tmp_path, base.NAME)
        assert (pulled.digest, pulled.apt_sources) == ("sha256:-real", None)


def test_a_newer_base_comes_when_asked_for_and_the_old_one_stays_without_network(tmp_path: Path) -> None:
    store = Store({base.NAME: "id-old"}, {base.NAME: "id-new"})
    assert base.ensure(store, tmp_path).digest == "sha256:-old"
    assert base.ensure(store, tmp_path, pull=True).digest == "sha256:-new"
    assert base.ensure(Store({base.NAME: "id-old"}), tmp_path, pull=True).digest == "sha256:-old"


def test_what_is_built_on_cannot_become_another_image(tmp_path: Path) -> None:
    store = Store({base.NAME: "id-1"})
    on = base.ensure(store, tmp_path)
    store.held[base.NAME] = "id-2"  # somebody pulls a newer one while we build
    assert (store.image_id(on.kept), on.name, on.digest) == ("id-1", base.NAME, "sha256:-1")


def test_two_versions_of_the_recipe_on_one_machine_keep_one_base_each(tmp_path: Path) -> None:
    """Two checkouts share an engine: neither gives the other a new base, hence a new image, at each build."""
    bootstrapped(tmp_path, "id-ours")
    bootstrapped(tmp_path, "id-theirs", "older")
    store = Store({base.NAME: "id-theirs", "without a name": "id-ours"})
    assert base.ensure(store, tmp_path).digest == "sha256:-ours"


class Tree:
    """A checkout with nothing in it, whose image is built in name only."""

    def __init__(self, root: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.engine: Store | None = store
        self.built: list[str] = []
        self.fails = False
        for name in ("Dockerfile", ".dockerignore"):
            (root / name).write_text("")

        def build(checkout: Path, folder: Path, engine: Any, on: base.Base, from_source: bool) -> str:
            self.built.append(on.digest)
            return "sha256:image"

        def pack(layout: Path, name: str, target: Path) -> None:
            if self.fails:
                raise ImageError("the disk is full")
            target.write_bytes(b"")

        monkeypatch.setattr(building.engines, "working", lambda wanted: self.engine)
        monkeypatch.setattr(building.engines, "choose", lambda wanted: pytest.fail("an engine is installed"))
        monkeypatch.setattr(building.context, "files", lambda checkout, rules: [])
        monkeypatch.setattr(building.Path, "glob", lambda self, pattern: [])
        monkeypatch.setattr(building, "_build", build)
        monkeypatch.setattr(building.Contents, "of", lambda layout, name, on: Contents(on.digest, {}))
        monkeypatch.setattr(building.archive, "pack", pack)

    def make(self, *options: Any) -> None:
        building.make(self.root, self.root / "cache", building.Options(*options))


def test_another_base_under_the_same_name_is_another_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tree is unchanged; only the store's base is a newer one, brought by somebody else or on demand."""
    store = Store({base.NAME: "id-1"}, {base.NAME: "id-3"})
    tree = Tree(tmp_path, store, monkeypatch)
    for identity in ("id-1", "id-1", "id-2"):
        store.held[base.NAME] = identity
        tree.make()
    assert tree.built == ["sha256:-1", "sha256:-2"]
    for _ in range(2):
        tree.make(None, False, None, True)
    assert tree.built[2:] == ["sha256:-3"]


def test_an_unchanged_tree_needs_neither_engine_nor_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store({base.NAME: "id-1"})
    tree = Tree(tmp_path, store, monkeypatch)
    tree.make()
    store.held.clear()
    tree.make()
    tree.engine = None
    tree.make()
    assert (len(tree.built), store.asked) == (1, [])
    assert capsys.readouterr().out.count("up to date") == 2


def test_what_a_failed_build_would_have_held_is_compared_with_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store({base.NAME: "id-1"})
    tree = Tree(tmp_path, store, monkeypatch)
    tree.make()
    store.held[base.NAME], tree.fails = "id-2", True
    with pytest.raises(ImageError, match="disk"):
        tree.make()
    capsys.readouterr()
    tree.fails = False
    tree.make()
    assert "base sha256:-1 -> sha256:-2" in capsys.readouterr().out


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
