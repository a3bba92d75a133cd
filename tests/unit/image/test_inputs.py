"""What the build takes from this machine: package sources, host-built binaries, and how each engine is told."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
from image_build import base, building, engines, reuse


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
