"""The base image: pulled where its registry can be reached, else bootstrapped from Debian packages, same name.

A bootstrapped base carries no package sources and no resolver of this machine: a build gets the sources as a
secret. The root file system is kept in the user's cache, so that it is made once a machine.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from image_build.engines import Engine
from image_build.errors import ImageError, install_debian, output

NAME = "docker.io/library/debian:bookworm-slim"
KEPT = "localhost/hypermesh-base"
"""Our own name for a base, with its id as tag: what a build starts from can't become another while it runs."""
SUITE = "bookworm"
BOOTSTRAP_SECONDS = 1800
# As Debian's own slim images: no documentation but licences.
SLIM_RULES = """path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/info/*
path-exclude /usr/share/lintian/*
"""
EMPTIED = (
    "dev",
    "var/lib/apt/lists",
    "var/cache/apt",
    "var/cache/debconf",
    "var/log",
    "usr/share/man",
    "usr/share/locale",
)
BLANKED = ("etc/resolv.conf", "etc/hostname", "etc/machine-id", "etc/apt/sources.list")


@dataclass(frozen=True)
class Base:
    """A base image in the engine's store, and the package sources a build on it needs (None: it has its own).

    kept: the name to build from, which never moves. digest: "sha256:…" of its manifest; of one that was bootstrapped
    here, no registry knows it.
    """

    name: str
    kept: str
    digest: str
    apt_sources: Path | None


def ensure(engine: Engine, cache: Path, wanted: str | None = None, pull: bool = False) -> Base:
    """Have the base in the engine's store: there already, else pulled, else bootstrapped (never one that was `wanted`).

    `pull` asks the registry first and goes on with the stored one where it can't be reached. A base bootstrapped by
    another version of this file is replaced, by the one that this version made if it is still stored; one that came
    from elsewhere is left alone. One caller at a time.
    """
    name = wanted or NAME
    if pull and not engine.pull(name):
        print(f"image: {name} can't be pulled; going on with what is here", flush=True)
    apt_sources = _ensure(engine, cache, name, may_be_made=wanted is None)
    image_id = engine.image_id(name) or ""
    kept = f"{KEPT}:{image_id.removeprefix('sha256:')}"
    if not engine.tag(image_id, kept):
        raise ImageError(f"the base {name} vanished from {engine.program}'s store: build again")
    return Base(name, kept, engine.digest(kept, name), apt_sources)


def stored_digest(engine: Engine, name: str) -> str | None:
    """The digest of the stored base, None when there is none."""
    return engine.digest(name, name) if engine.image_id(name) else None


def _ensure(engine: Engine, cache: Path, name: str, may_be_made: bool) -> Path | None:
    """Has it there; the package sources it needs."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    made = cache / "image-base" / f"{SUITE}-{recipe}"
    image_id = engine.image_id(name)
    maker = _maker(cache, engine.program, image_id)
    if image_id is not None and (maker is None or (maker == made and may_be_made)):
        return maker / "sources.list" if maker else None
    if not (maker and may_be_made) and engine.pull(name):
        return None
    if not may_be_made:
        command = " ".join([engine.program, "pull", *engine.pull_options, name])
        raise ImageError(f"the base {name} can't be pulled: see what `{command}` says")
    record = made / f"{engine.program}.id"
    if not (record.exists() and engine.tag(record.read_text(), NAME)):
        record.write_text(_bootstrapped(engine, made))
    return made / "sources.list"


def _maker(cache: Path, program: str, image_id: str | None) -> Path | None:
    """The cache folder a stored base image was bootstrapped in, None when it came from elsewhere."""
    records = (cache / "image-base").glob(f"*/{program}.id")
    return next((record.parent for record in records if record.read_text() == image_id), None)


def _bootstrapped(engine: Engine, made: Path) -> str:
    root_tar = made / "root.tar"
    if not root_tar.exists():
        print(f"image: {NAME} can't be pulled; bootstrapping it from Debian packages (about a minute)", flush=True)
        if shutil.which("debootstrap") is None:
            install_debian("debootstrap", f"making {NAME}")
        made.mkdir(parents=True, exist_ok=True)
        _make_root(made)
    engine.import_base(root_tar, NAME)
    image_id = engine.image_id(NAME)
    if image_id is None:
        raise ImageError(f"{engine.program} imported {NAME} but doesn't list it; run `{engine.program} images`")
    return image_id


def _make_root(made: Path) -> None:
    """Leave `root.tar` and the `sources.list` it was made from in `made`; the tar appears last and whole."""
    sources = host_sources(output(["apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT)"]))
    mirror = [line.split()[1] for line in sources if line.split()[2] == SUITE][:1]
    with tempfile.TemporaryDirectory(dir=made) as folder:
        root = Path(folder) / "root"
        output(["debootstrap", "--variant=minbase", SUITE, root, *mirror], BOOTSTRAP_SECONDS)
        sources = sources or (root / "etc/apt/sources.list").read_text().splitlines()
        _slim(root)
        output(["tar", "--sort=name", "--numeric-owner", "-C", root, "-cf", f"{folder}/root.tar", "."], 300)
        (made / "sources.list").write_text("\n".join(sources) + "\n")
        Path(folder, "root.tar").rename(made / "root.tar")


def host_sources(targets: str) -> list[str]:
    """This machine's own sources of the suite, one-line style, from `apt-get indextargets` (URI codename component)."""
    rows = {tuple(line.split()) for line in targets.splitlines() if len(line.split()) == 3}
    wanted = (SUITE, f"{SUITE}-updates", f"{SUITE}-security")
    debian = [row for row in sorted(rows) if row[1] in wanted and row[2] == "main"]
    return [f"deb {uri} {codename} {component}" for uri, codename, component in debian]


def _slim(root: Path) -> None:
    """Take away what a container doesn't need or must not know: devices, documentation, this machine's names."""
    for name in EMPTIED:
        for entry in (root / name).glob("*"):
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    for name in BLANKED:
        (root / name).write_text("")
    for entry in (root / "usr/share/doc").glob("*/*"):
        if entry.name != "copyright" and not entry.is_dir():
            entry.unlink()
    (root / "etc/dpkg/dpkg.cfg.d/slim").write_text(SLIM_RULES)
