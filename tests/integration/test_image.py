"""The image as a cluster gets it: its archive is unpacked here and run in a chroot, without any network.

Nothing of the engine that built it is used, so what is tested is what `ctr images import` would be given.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
BUILD_SECONDS = 1800
RUN_SECONDS = 120
USER = "65532:65532"
PACKAGES = "opt/hypermesh/lib/python3.11/site-packages"
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
MODULE_STAMP = b"mod\tgithub.com/cometbft/cometbft\t"
SCRIPTS = sorted(PROJECT["project"]["scripts"])

pytestmark = pytest.mark.root


@dataclass(frozen=True)
class Image:
    """An unpacked image: its root folder and its configuration (OCI image configuration)."""

    root: Path
    config: dict[str, object]

    @property
    def environment(self) -> dict[str, str]:
        return dict(entry.split("=", 1) for entry in self.config["Env"])  # type: ignore[attr-defined]

    def run(self, *command: str, user: str = USER) -> subprocess.CompletedProcess[str]:
        """Run a command as the image's user in its root, in a new network namespace where not even `lo` is up."""
        chroot = ["chroot", f"--userspec={user}", "--groups=", str(self.root), *command]
        return subprocess.run(
            ["unshare", "--net", "--", *chroot],
            env=self.environment,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )

    def python(self, code: str) -> str:
        done = self.run("/opt/hypermesh/bin/python", "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout


def build(*options: str) -> Path:
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "hack" / "image"), *options],
        input="",
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return CHECKOUT / "build" / "image" / "hypermesh.tar"


def unpack(archive: Path, folder: Path) -> Image:
    """Apply the layers in order, with their whiteouts (OCI image layer specification)."""
    layout, root = folder / "layout", folder / "root"
    layout.mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", layout], check=True, timeout=RUN_SECONDS)
    root.mkdir()
    root.chmod(0o755)

    def blob(digest: str) -> Path:
        return layout / "blobs" / digest.replace(":", "/")

    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = json.loads(blob(entry["digest"]).read_text())
    for layer in manifest["layers"]:
        subprocess.run(["tar", "-xpf", blob(layer["digest"]), "-C", root], check=True, timeout=RUN_SECONDS)
        for whiteout in list(root.rglob(".wh.*")):
            remove_whited_out(whiteout)
    return Image(root, json.loads(blob(manifest["config"]["digest"]).read_text())["config"])


def remove_whited_out(whiteout: Path) -> None:
    assert whiteout.name != ".wh..wh..opq", "the image has an opaque folder, which this test doesn't apply"
    gone = whiteout.with_name(whiteout.name.removeprefix(".wh."))
    if gone.is_dir() and not gone.is_symlink():
        shutil.rmtree(gone)
    else:
        gone.unlink(missing_ok=True)
    whiteout.unlink()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    assert os.geteuid() == 0, "unpacking an image and chroot need root: run these tests as root"
    folder = tmp_path_factory.mktemp("image")
    folder.chmod(0o755)
    for parent in folder.parents:
        if parent.is_relative_to(tmp_path_factory.getbasetemp()):
            parent.chmod(0o755)
    made = unpack(build(), folder)
    for name, minor in (("null", "3"), ("urandom", "9")):
        subprocess.run(["mknod", "-m", "666", made.root / "dev" / name, "c", "1", minor], check=True)
    yield made
    shutil.rmtree(folder)


def test_it_runs_as_an_ordinary_user_unless_told_otherwise(image: Image) -> None:
    assert image.config["User"] == USER
    assert image.run("/usr/bin/id").stdout.startswith("uid=65532(hypermesh) gid=65532(hypermesh)")
    refused = image.run("/usr/bin/touch", "/opt/hypermesh/bin/new")
    assert refused.returncode != 0
    assert "Permission denied" in refused.stderr


def test_the_network_is_blocked_in_these_tests(image: Image) -> None:
    address = "2001:db8::1"  # for documentation (RFC 3849), and nowhere: the namespace has no route at all
    code = f"import socket\ntry: socket.create_connection(({address!r}, 443), 1)\nexcept OSError as e: print(e.errno)"
    assert int(image.python(code)) in {errno.ENETUNREACH, errno.EADDRNOTAVAIL}  # kernels differ; neither sends


def test_oqs_imports_signs_and_verifies_without_network(image: Image) -> None:
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "import oqs\n"
        "s = oqs.Signature('Falcon-padded-1024'); public = s.generate_keypair(); made = s.sign(b'm')\n"
        "print(oqs.oqs_version(), len(made), s.verify(b'm', made, public), oqs.native()._name)\n"
    )
    assert image.python(code).split()[-4:] == ["0.13.0", "1280", "True", "/opt/liboqs/lib/liboqs.so"]


def test_the_compiled_part_is_inside_and_the_wheel_says_for_what(image: Image) -> None:
    code = (
        "import hypermesh_native, importlib.metadata; from hypermesh import digests, falcon\n"
        "pair = falcon.generate(); made = falcon.sign(pair.secret, 'd', b'm')\n"
        "print(hypermesh_native.verify(pair.public, made, digests.digest('d', b'm')))\n"
        "print(len(hypermesh_native.Tree(()).app_hash))\n"
        "print(importlib.metadata.distribution('hypermesh').read_text('WHEEL'))\n"
    )
    told = image.python(code)
    assert told.split()[:2] == ["True", "32"]
    assert "Root-Is-Purelib: false" in told
    assert f"Tag: cp311-abi3-linux_{platform.machine()}" in told


def test_nothing_that_could_fetch_or_build_a_library_is_inside(image: Image) -> None:
    present = [
        name
        for name in ("git", "gcc", "cc", "cmake", "cargo", "rustc", "pip", "pip3", "curl", "wget")
        if image_has(image, name)
    ]
    assert present == []


def image_has(image: Image, program: str) -> bool:
    return any((image.root / folder.lstrip("/") / program).exists() for folder in image.environment["PATH"].split(":"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_console_command_tells_its_options(image: Image, script: str) -> None:
    done = image.run(f"/opt/hypermesh/bin/{script}", "--help")
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower() or script.startswith("kubectl_complete")  # that one only completes words


def test_every_locked_dependency_is_installed_at_its_version(image: Image) -> None:
    code = (
        "import importlib.metadata as m\n"
        'print(*(f\'{d.name.lower().replace("_", "-")}=={d.version}\' for d in m.distributions()))'
    )
    installed = set(image.python(code).split())
    names = [line for line in PROJECT["project"]["dependencies"] if "==" in line]
    wanted = {line.split(";")[0].split("[")[0].strip().lower().replace("_", "-") for line in names}
    assert wanted - installed == set()


def test_what_no_lock_file_pins_is_recorded(image: Image) -> None:
    """The list inside is what dpkg says; base and list are also beside the archive, for the next build to compare."""
    recorded = json.loads((CHECKOUT / "build" / "image" / "contents.json").read_text())
    told = image.run("/usr/bin/dpkg-query", "--show", "--showformat=${binary:Package} ${Version}\n")
    listed = (image.root / "usr/share/hypermesh/debian-packages").read_text()
    assert (told.returncode, told.stdout) == (0, listed)
    assert recorded["packages"] == dict(line.split() for line in listed.splitlines())
    assert "libc6" in " ".join(recorded["packages"])
    labels = image.config["Labels"]
    assert isinstance(labels, dict)
    name, digest = (labels[f"org.opencontainers.image.base.{part}"] for part in ("name", "digest"))
    assert recorded["base"] == f"{name.partition('@')[0]}@{digest}"
    assert digest.startswith("sha256:")


def test_what_is_only_stored_is_not_taken_for_pulled(tmp_path: Path) -> None:
    """Else a bootstrapped base would pass for the registry's. The registry of this name is this machine: none."""
    name = "localhost/hypermesh-test:stored"
    (tmp_path / "file").write_text("content")
    subprocess.run(["tar", "-C", tmp_path, "-cf", tmp_path / "root.tar", "file"], check=True, timeout=RUN_SECONDS)
    code = (
        "import pathlib, sys; sys.path.insert(0, 'hack/image')\n"
        "from image_build import engines, errors\n"
        f"engine, name = engines.choose(None), {name!r}\n"
        f"engine.import_base(pathlib.Path({str(tmp_path / 'root.tar')!r}), name)\n"
        "print(engine.image_id(name) is not None, engine.pull(name))\n"
        "errors.output([engine.program, 'rmi', name])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, ["True", "False"]), done.stderr


def test_dependencies_with_native_code_load(image: Image) -> None:
    modules = "aiohttp chiapos chiavdf cryptography.x509 grpc kopf lmdb numpy pynvml pyudev uvloop"
    image.python(f"import {', '.join(modules.split())}; pyudev.Context()")


def test_cometbft_is_the_pinned_version_and_runs(image: Image) -> None:
    """Its own `version` command prints a constant that upstream forgot to raise, so the module stamp is read."""
    go_mod = (CHECKOUT / "hack/toolchain/cometbft/go.mod").read_text()
    pinned = go_mod.split("github.com/cometbft/cometbft v")[1].split()[0]
    binary = (image.root / "usr/local/bin/cometbft").read_bytes()
    stamps = [line.split(b"\t")[2].decode() for line in binary.split(b"\n") if line.startswith(MODULE_STAMP)]
    assert set(stamps) == {f"v{pinned}"}
    assert image.run("/usr/local/bin/cometbft", "version", "--home", "/tmp/cometbft").returncode == 0


def test_our_packages_are_inside_whole_and_compiled(image: Image) -> None:
    sources = [path for root in ("operator", "agents") for path in (CHECKOUT / root).rglob("*.py")]
    assert sources
    tracked = subprocess.run(
        ["git", "ls-files", "operator/*.py", "agents/*.py"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout.split()
    for name in tracked:
        installed = image.root / PACKAGES / name.partition("/")[2]
        assert installed.exists(), f"{name} is not in the image: add its package to pyproject.toml"
        compiled = Path(importlib.util.cache_from_source(str(installed)))
        flags = int.from_bytes(compiled.with_name(f"{installed.stem}.cpython-311.pyc").read_bytes()[4:8], "little")
        assert flags == 1, f"{compiled} is checked against its source at every start (PEP 552)"


def test_the_safe_path_is_on_and_the_stdlib_operator_wins(image: Image) -> None:
    expected = {"PYTHONSAFEPATH": "1", "OQS_INSTALL_PATH": "/opt/liboqs", "PYTHONDONTWRITEBYTECODE": "1"}
    assert expected.items() <= image.environment.items()
    assert image.python("import operator; print(operator.__file__)").strip() == "/usr/lib/python3.11/operator.py"


def test_nothing_of_the_build_machine_is_inside(image: Image) -> None:
    forbidden = {
        str(CHECKOUT).encode(),
        str(Path(os.environ.get("HYPERMESH_CACHE", "~/.cache/hypermesh")).expanduser()).encode(),
    }
    found = [path for path in regular_files(image.root) if any(text in path.read_bytes() for text in forbidden)]
    assert found == []
    for name in ("etc/pip.conf", "root/.cache", "root/.config", "run/secrets/ca", "run/secrets/apt-sources"):
        assert not (image.root / name).exists(), name
    for name in ("etc/resolv.conf", "etc/hostname"):
        path = image.root / name
        assert not path.exists() or path.read_text() == "", name


def test_no_package_index_of_the_build_machine_is_inside(image: Image) -> None:
    hosts = {host.encode() for host in index_hosts()}
    assert hosts, "this machine names no package index at all, so this test would prove nothing"
    inside = json.dumps(image.config).encode()
    assert not any(host in inside for host in hosts)
    configuration = [*regular_files(image.root / "etc"), *regular_files(image.root / "opt" / "hypermesh" / "bin")]
    named = [path for path in configuration if any(host in path.read_bytes() for host in hosts)]
    assert [path for path in named if not is_from_base(image, path)] == []


def is_from_base(image: Image, path: Path) -> bool:
    """Debian's own public image names Debian's mirror in its sources, as every Debian does."""
    return path.is_relative_to(image.root / "etc" / "apt" / "sources.list.d")


def index_hosts() -> set[str]:
    """Host names of the package sources this machine uses: pip's, Go's and Debian's."""
    told = [
        value for name, value in os.environ.items() if name.startswith(("PIP_", "GOPROXY", "CARGO_")) and "//" in value
    ]
    pip = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    apt = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"], capture_output=True, text=True, check=False
    )
    words = " ".join([*told, pip.stdout, apt.stdout]).replace("'", " ").replace(",", " ").split()
    return {host for word in words if "//" in word and (host := urlsplit(word.partition("=")[2] or word).hostname)}


def regular_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def test_an_unchanged_tree_is_not_built_again(image: Image) -> None:
    record = CHECKOUT / "build" / "image" / "hypermesh.json"
    for _ in range(3):
        before, key = build().stat(), json.loads(record.read_text())["key"]
        after = build().stat()
        if json.loads(record.read_text())["key"] == key:  # else someone edited the tree between the two builds
            assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
            return
    pytest.fail("the tree changed during every attempt: stop editing it while this test runs")
