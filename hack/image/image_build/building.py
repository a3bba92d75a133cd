"""The build itself: nothing when the key is unchanged, else engine, base, stages to reuse, build, archive.

Output: `build/image/hypermesh.tar` and beside it `hypermesh.json` with the key, the base's digest and the image's id.
What the engine prints goes to `build/image/build.log`; the terminal gets one line a step.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from image_build import archive, base, context, engines, reuse
from image_build.contents import Contents
from image_build.errors import ImageError

NAME = "docker.io/library/hypermesh:dev"
CONTENTS = "contents.json"
BUILD_SECONDS = 3600
# Where packages come from on this machine; read by pip, Go and the HTTP libraries themselves.
FORWARDED = (
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "GOPROXY", "GOSUMDB", "GONOSUMDB"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
CERTIFICATES = ("SSL_CERT_FILE", "PIP_CERT", "CARGO_HTTP_CAINFO")
SYSTEM_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
SECRET_BUNDLE = "/run/secrets/ca"
STEP = re.compile(r"^(?:\[\d+/\d+\] )?STEP \d+/\d+: .*|^#\d+ \[.*")


@dataclass(frozen=True)
class Options:
    """What was asked for. base: full name of the image to build on, None for ours; pull: ask its registry first."""

    engine: str | None = None
    from_source: bool = False
    base: str | None = None
    pull: bool = False


def make(checkout: Path, cache: Path, options: Options) -> Path:
    """Have `build/image/hypermesh.tar` of the tree as it is now; returns its path.

    The tree being that of the last build, its base decides: another one in the store is a reason to build; none, or no
    engine at all, is none.
    """
    folder = checkout / "build" / "image"
    folder.mkdir(parents=True, exist_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    target, record = folder / "hypermesh.tar", folder / "hypermesh.json"
    started = time.monotonic()
    with _locked(folder / ".lock"):
        rules = context.parse_rules((checkout / ".dockerignore").read_text())
        tool = sorted(str(path.relative_to(checkout)) for path in Path(__file__).parent.glob("*.py"))
        paths = [*context.files(checkout, rules), ".dockerignore", "Dockerfile", *tool]
        key = context.key(checkout, paths, [options.engine or "", str(options.from_source), options.base or ""])
        last = json.loads(record.read_text()) if target.exists() and record.exists() else {}
        engine = engines.working(options.engine)
        stored = base.stored_digest(engine, options.base or base.NAME) if engine else None
        if not options.pull and last.get("key") == key and stored in (None, last["base"]):
            print(f"image: {target} is up to date ({time.monotonic() - started:.1f} s)")
            return target
        with _locked(cache / "image.lock"):  # engines know one hypermesh:dev and one base of a name for all checkouts
            engine = engine or engines.choose(options.engine)
            on = base.ensure(engine, cache, options.base, options.pull)
            if last.get("key") == key and on.digest == last["base"]:
                print(f"image: {target} is up to date ({time.monotonic() - started:.1f} s)")
                return target
            record.unlink(missing_ok=True)
            image_id = _build(checkout, folder, engine, on, options.from_source)
        contents = _compared(folder, on)
        archive.pack(folder / "layout", NAME, target)
        facts = {"key": key, "base": on.digest, "image": NAME, "id": image_id}
        record.write_text(json.dumps(facts, indent=2) + "\n")
        contents.write(folder / CONTENTS)
        size = target.stat().st_size / 1e6
        print(f"image: {NAME} in {target}, {size:.0f} MB ({time.monotonic() - started:.1f} s)")
    return target


def _build(checkout: Path, folder: Path, engine: engines.Engine, on: base.Base, from_source: bool) -> str:
    replaced = {} if from_source else reuse.stages(checkout)
    taken = f", taking {' and '.join(sorted(replaced))} from this machine" if replaced else ""
    print(f"image: building with {engine.program} on {on.name}{taken}", flush=True)
    arguments, secrets = forwarded(os.environ, on.apt_sources)
    arguments |= {"BASE": on.kept, "BASE_NAME": on.name, "BASE_DIGEST": on.digest}
    request = engines.Request(NAME, arguments, secrets, replaced)
    _run(engine.build_command(checkout, request), folder / "build.log")
    engine.save(NAME, folder / "layout")
    archive.inflate(folder / "layout", NAME)
    image_id = engine.image_id(NAME)
    if image_id is None:
        raise ImageError(f"{engine.program} built {NAME} but doesn't list it; see {folder / 'build.log'}")
    return image_id


def _compared(folder: Path, on: base.Base) -> Contents:
    """What no lock file pins of the image; says what of it is not as in the last build."""
    earlier, now = Contents.read(folder / CONTENTS), Contents.of(folder / "layout", NAME, on)
    for line in now.differences(earlier) if earlier else ():
        print(f"image: not as in the last build: {line}")
    return now


def forwarded(environment: Mapping[str, str], apt_sources: Path | None) -> tuple[dict[str, str], dict[str, Path]]:
    """Build arguments and secrets of this machine: indexes, proxies, certificates, package sources."""
    arguments = {name: environment[name] for name in FORWARDED if environment.get(name)}
    secrets = {} if apt_sources is None else {"apt-sources": apt_sources}
    bundle = Path(environment.get("SSL_CERT_FILE") or SYSTEM_BUNDLE)
    if bundle.exists():
        secrets["ca"] = bundle
        arguments |= dict.fromkeys(CERTIFICATES, SECRET_BUNDLE)
    return arguments, secrets


def _run(command: Sequence[str], log: Path) -> None:
    """Run the engine politely; one terminal line a step, all of it in `log`; ImageError with its last words."""
    nice = ["nice", "-n", "10"] if shutil.which("nice") else []
    deadline = time.monotonic() + BUILD_SECONDS
    with log.open("w") as written:
        process = subprocess.Popen([*nice, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            written.write(line)
            if STEP.match(line):
                print(f"image: {line.strip()[:110]}", flush=True)
            if time.monotonic() > deadline:
                process.kill()
                raise ImageError(f"the build took more than {BUILD_SECONDS} s; see {log}")
        status = process.wait(timeout=60)
    if status != 0:
        tail = "\n".join(log.read_text().splitlines()[-30:])
        raise ImageError(f"the build failed with {status}; the end of {log}:\n{tail}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One holder at a time; a second one waits."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
