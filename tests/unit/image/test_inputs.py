"""What the build takes from this machine: package sources, host-built binaries, and how each engine is told."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest
from image_build import base, building, engines, names, reuse

CHECKOUT = Path(__file__).resolve().parents[3]


def test_only_the_suites_main_component_is_taken_from_the_host() -> None:
    targets = (
        "http://mirror.test/debian/ bookworm main\n"
        "http://mirror.test/debian/ bookworm main\n"
        "http://mirror.test/debian/ bookworm contrib\n"
        "http://mirror.test/security/ bookworm-security main\n"
        "http://other.test/ cloud-sdk main\n"
        "http://mirror.test/debian/ trixie main\n"
    )
    assert base.host_sources(targets) == [
        "deb http://mirror.test/debian/ bookworm main",
        "deb http://mirror.test/security/ bookworm-security main",
    ]


def test_the_go_version_is_read_from_the_build_information() -> None:
    stamp = reuse.BUILD_INFO_MAGIC + bytes([8, 2]) + bytes(16) + bytes([8]) + b"go1.27.3" + b"rest"
    assert reuse.go_version(b"\x7fELF" + stamp) == "go1.27.3"
    assert reuse.go_version(b"\x7fELF no stamp") == ""


def test_a_real_go_binary_tells_its_version() -> None:
    binary = Path(__file__).resolve().parents[3] / "build" / "bin" / "cometbft"
    if not binary.exists():
        pytest.fail("build/bin/cometbft is missing: run `python3 hack/toolchain cometbft`")
    assert reuse.go_version(binary.read_bytes()).startswith("go1.")


def test_a_binary_of_another_language_has_no_go_version() -> None:
    library = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
    shared = next((path for path in library.rglob("*.so*") if path.is_file()), None)
    assert shared is not None
    assert reuse.go_version(shared.read_bytes()) == ""


def test_indexes_and_certificates_are_forwarded_and_nothing_else(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.write_text("certificates")
    environment = {
        "PIP_INDEX_URL": "https://index.test/simple",
        "GOPROXY": "",
        "SSL_CERT_FILE": str(bundle),
        "TOKEN": "secret",
    }
    arguments, secrets = building.forwarded(environment, tmp_path / "sources.list")
    assert arguments == {
        "PIP_INDEX_URL": "https://index.test/simple",
        "SSL_CERT_FILE": "/run/secrets/ca",
        "PIP_CERT": "/run/secrets/ca",
        "CARGO_HTTP_CAINFO": "/run/secrets/ca",
    }
    assert secrets == {"ca": bundle, "apt-sources": tmp_path / "sources.list"}


@pytest.mark.parametrize("engine", engines.ENGINES, ids=lambda engine: engine.program)
def test_every_engine_is_told_the_same(engine: engines.Engine) -> None:
    request = engines.Request("name:dev", {"A": "1"}, {"ca": Path("/ca")}, {"liboqs": Path("/oqs")})
    command = engine.build_command(Path("/context"), request)
    assert command[0] == engine.program
    assert command[-1] == "/context"
    told = {"--build-arg=A=1", "--secret=id=ca,src=/ca", "--build-context=liboqs=/oqs", "--tag=name:dev"}
    assert told < set(command)


@pytest.mark.parametrize(
    ("name", "full", "repository"),
    [
        ("debian:12", "docker.io/library/debian:12", "docker.io/library/debian"),
        ("debian@sha256:0", "docker.io/library/debian@sha256:0", "docker.io/library/debian"),
        ("me/debian", "docker.io/me/debian", "docker.io/me/debian"),
        ("example.org/debian:12", "example.org/debian:12", "example.org/debian"),
        ("localhost:5000/a/b:c@sha256:0", "localhost:5000/a/b:c@sha256:0", "localhost:5000/a/b"),
        (base.NAME, base.NAME, "docker.io/library/debian"),
    ],
)
def test_short_names_are_the_full_ones(name: str, full: str, repository: str) -> None:
    assert (names.full(name), names.repository(name)) == (full, repository)


def test_of_an_image_from_two_registries_the_digest_is_that_of_the_name() -> None:
    pulled = ["mirror.test/debian@sha256:1", "debian@sha256:2"]
    assert engines.repository_digest(pulled, base.NAME) == "sha256:2"
    assert engines.repository_digest(pulled, "mirror.test/debian:12") == "sha256:1"
    assert engines.repository_digest(pulled, "other.test/debian") is None


def test_only_makes_own_command_line_names_another_base(tmp_path: Path) -> None:
    """What `make image` runs, and the base that any of its programs is told; BASE of somebody's shell is theirs."""
    (tmp_path / "Makefile").write_text(f"image:\ninclude {CHECKOUT}/hack/image.mk\nshow: ; @echo $$HYPERMESH_BASE.\n")

    def made(*words: str, **environment: str) -> str:
        command = ["make", "-C", str(tmp_path), "--no-print-directory", *words]
        told = {"PATH": os.environ["PATH"], **environment}
        return subprocess.run(command, env=told, capture_output=True, text=True, check=True, timeout=60).stdout.strip()

    assert made("show", BASE="bare") == "."
    assert made("show", "BASE=debian:12", BASE="bare") == "debian:12."
    assert made("show", HYPERMESH_BASE="debian:12") == "debian:12."
    assert made("-n", "image", PULL="1") == "python3 hack/image"
    assert made("-n", "image", "PULL=1") == "python3 hack/image --pull"
