"""What an image is made of beside our locked inputs, which Git shows: its base and its Debian packages.

Debian's mirrors keep only the newest version of a package, so nothing pins these; they are recorded instead. The image
carries the list itself (MANIFEST) and the base in its labels, the build leaves both in `build/image/contents.json`,
and the next build says what became different.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from image_build import archive
from image_build.base import Base

MANIFEST = "usr/share/hypermesh/debian-packages"
"""In the image: a line a package, `name version`."""


@dataclass(frozen=True)
class Contents:
    """base: `name@sha256:…`; packages: Debian package -> version."""

    base: str
    packages: dict[str, str]

    @classmethod
    def of(cls, layout: Path, name: str, base: Base) -> Contents:
        """Of an image in a layout whose layers are inflated. Raises ImageError."""
        lines = archive.read_file(layout, name, MANIFEST).decode().splitlines()
        return cls(f"{base.name.partition('@')[0]}@{base.digest}", dict(line.split(maxsplit=1) for line in lines))

    @classmethod
    def read(cls, path: Path) -> Contents | None:
        """What an earlier build wrote; None when there was none."""
        return cls(**json.loads(path.read_text())) if path.exists() else None

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    def differences(self, earlier: Contents) -> list[str]:
        """A line a difference, base first."""
        lines = [f"base {earlier.base} -> {self.base}"] if self.base != earlier.base else []
        for package in sorted(self.packages.keys() | earlier.packages.keys()):
            old, new = earlier.packages.get(package, "none"), self.packages.get(package, "none")
            if old != new:
                lines.append(f"{package} {old} -> {new}")
        return lines
