"""Which program builds here, and how each is told the same thing.

docker and podman count only when they answer `info`: an installed client without a running engine builds nothing.
buildah needs no engine and no network of its own, so it is what gets installed where none of the three works.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from image_build.errors import INSTALL_SECONDS, ImageError, install_debian, output, succeeds
from image_build.names import repository

PULL_SECONDS = 300
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Request:
    """One build: the image's name, arguments, secrets (id -> file) and stages replaced by folders (stage -> folder)."""

    name: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Path] = field(default_factory=dict)
    replaced: Mapping[str, Path] = field(default_factory=dict)

    def options(self) -> list[str]:
        """The options all three engines share."""
        return [
            *(f"--build-arg={name}={value}" for name, value in sorted(self.arguments.items())),
            *(f"--secret=id={name},src={path}" for name, path in sorted(self.secrets.items())),
            *(f"--build-context={stage}={path}" for stage, path in sorted(self.replaced.items())),
            f"--tag={self.name}",
        ]


class Engine(ABC):
    """A program that builds images and keeps them in a store of its own."""

    program: str
    pull_options: Sequence[str] = ()

    def works(self) -> bool:
        """Whether this machine can build with it now."""
        return succeeds([self.program, "info"])

    def image_id(self, name: str) -> str | None:
        """The id of a stored image, or None when there is none of that name."""
        listed = output([self.program, "images", "--quiet", "--no-trunc", name]) if self._has(name) else ""
        return listed.split()[0] if listed.split() else None

    def _has(self, name: str) -> bool:
        return succeeds([self.program, "inspect", "--type=image", name])

    @abstractmethod
    def digest(self, stored: str, name: str) -> str:
        """Of image `stored` the manifest's digest: what `name@…` pulls, or, never pulled, what the store made up."""

    def pull(self, name: str) -> bool:
        """Try to pull an image; whether its registry gave it, be it stored already or not."""
        return succeeds([self.program, "pull", "--quiet", *self.pull_options, name], PULL_SECONDS)

    def tag(self, image_id: str, name: str) -> bool:
        """Give a stored image a name; whether it is stored."""
        return succeeds([self.program, "tag", image_id, name])

    def import_base(self, root_tar: Path, name: str) -> None:
        """Store a root file system as a one-layer image."""
        changes = ['--change=CMD ["bash"]', f"--change=ENV PATH={SEARCH_PATH}"]
        output([self.program, "import", *changes, root_tar, name], INSTALL_SECONDS)

    @abstractmethod
    def build_command(self, context: Path, request: Request) -> list[str]:
        """The command that builds `context`."""

    @abstractmethod
    def save(self, name: str, layout: Path) -> None:
        """Write an image into an OCI layout folder, copying only the layers that are not there yet."""


class Docker(Engine):
    program = "docker"

    def works(self) -> bool:
        return super().works() and succeeds(["docker", "buildx", "version"])

    def digest(self, stored: str, name: str) -> str:
        pulled = output(["docker", "image", "inspect", '--format={{join .RepoDigests " "}}', stored]).split()
        return repository_digest(pulled, name) or self.image_id(stored) or ""

    def build_command(self, context: Path, request: Request) -> list[str]:
        return ["docker", "buildx", "build", "--load", "--network=host", *request.options(), str(context)]

    def save(self, name: str, layout: Path) -> None:
        with tempfile.TemporaryDirectory(dir=layout.parent) as folder:
            saved = Path(folder) / "saved.tar"  # since version 25 `docker save` writes an OCI layout
            output(["docker", "save", "--output", saved, name], INSTALL_SECONDS)
            layout.mkdir(exist_ok=True)
            output(["tar", "-xf", saved, "-C", layout], INSTALL_SECONDS)


class Podman(Engine):
    program = "podman"

    def digest(self, stored: str, name: str) -> str:
        return output(["podman", "image", "inspect", "--format={{.Digest}}", stored]).strip()

    def build_command(self, context: Path, request: Request) -> list[str]:
        return [
            "podman",
            "build",
            "--network=host",
            "--layers",
            "--force-rm",
            "--pull=never",
            *request.options(),
            str(context),
        ]

    def save(self, name: str, layout: Path) -> None:
        output(["podman", "push", "--quiet", name, f"oci:{layout}:{name}"], INSTALL_SECONDS)


class Buildah(Engine):
    program = "buildah"
    pull_options = ("--policy=always",)  # the others' `pull` always asks; buildah's is content with what is stored

    def digest(self, stored: str, name: str) -> str:
        return output(["buildah", "inspect", "--type=image", "--format={{.FromImageDigest}}", stored]).strip()

    def build_command(self, context: Path, request: Request) -> list[str]:
        how = ["--isolation=chroot", "--network=host", "--layers", "--force-rm", "--pull=never"]
        return ["buildah", "build", *how, *request.options(), str(context)]

    def import_base(self, root_tar: Path, name: str) -> None:
        container = output(["buildah", "from", "scratch"]).strip()
        try:
            output(["buildah", "add", "--quiet", container, root_tar, "/"], INSTALL_SECONDS)
            output(["buildah", "config", "--cmd=bash", f"--env=PATH={SEARCH_PATH}", container])
            output(["buildah", "commit", "--quiet", container, name], INSTALL_SECONDS)
        finally:
            output(["buildah", "rm", container])

    def save(self, name: str, layout: Path) -> None:
        output(["buildah", "push", "--quiet", name, f"oci:{layout}:{name}"], INSTALL_SECONDS)


ENGINES: Sequence[Engine] = (Docker(), Podman(), Buildah())


def repository_digest(pulled: Sequence[str], name: str) -> str | None:
    """Of `repository@digest`s, which one image may have from several registries, the digest in that of `name`."""
    entries = (entry.partition("@") for entry in pulled)
    return next((digest for place, _, digest in entries if repository(place) == repository(name)), None)


def working(wanted: str | None) -> Engine | None:
    """The engine asked for, else the first that works; None where none does."""
    candidates = (engine for engine in ENGINES if wanted in (None, engine.program))
    return next((engine for engine in candidates if engine.works()), None)


def choose(wanted: str | None) -> Engine:
    """As `working`; installs buildah where none does."""
    if engine := working(wanted):
        return engine
    if wanted in (None, "buildah"):
        install_debian("buildah", "building the image without a working docker or podman")
        if ENGINES[-1].works():
            return ENGINES[-1]
    raise ImageError(f"{wanted or 'buildah'} does not work here: see what `{wanted or 'buildah'} info` says")
