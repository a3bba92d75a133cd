"""Generate Python from protos/: run by hand (`python hack/protos.py`), and by the wheel's build.

A wheel in which compiled parts lie (hack/native) is for this platform, and for every CPython that has their interface.

protos/hypermesh/v1/*.proto  -> operator/hypermesh/v1/
protos/third_party/**.proto  -> operator/hypermesh_ledger/pb/  (imports rewritten to live below that package)
"""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OURS = ROOT / "protos"
THIRD_PARTY = ROOT / "protos" / "third_party"
DOMAIN = ROOT / "operator"
LEDGER = ROOT / "operator" / "hypermesh_ledger" / "pb"


def protoc(arguments: list[str]) -> None:
    """Run the bundled protoc; raises SystemExit with its status when it refuses a file."""
    from importlib.resources import files

    from grpc_tools import protoc as compiler

    include = str(files("grpc_tools") / "_proto")
    status = compiler.main(["protoc", f"-I{include}", *arguments])
    if status != 0:
        raise SystemExit(f"protoc failed with {status}: fix the .proto file it names above")


def generate_domain() -> None:
    """Our own messages and services, with type stubs and gRPC code."""
    sources = sorted(str(path) for path in (OURS / "hypermesh").rglob("*.proto"))
    out = str(DOMAIN)
    protoc([f"-I{OURS}", f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}", *sources])
    (DOMAIN / "hypermesh" / "v1" / "__init__.py").touch()


def generate_third_party() -> None:
    """Messages of the protocols we speak; made importable below hypermesh_ledger.pb."""
    sources = sorted(str(path) for path in THIRD_PARTY.rglob("*.proto"))
    if not sources:
        return
    LEDGER.mkdir(parents=True, exist_ok=True)
    protoc([f"-I{THIRD_PARTY}", f"--python_out={LEDGER}", f"--pyi_out={LEDGER}", *sources])
    tops = "|".join(sorted(path.name for path in THIRD_PARTY.iterdir() if path.is_dir()))
    moved = re.compile(rf"^(from|import) ((?:{tops})\b)", re.MULTILINE)
    for path in [*LEDGER.rglob("*_pb2.py"), *LEDGER.rglob("*_pb2.pyi")]:
        path.write_text(moved.sub(r"\1 hypermesh_ledger.pb.\2", path.read_text()))
    for folder in [LEDGER, *(path for path in LEDGER.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").touch()


def main() -> None:
    generate_domain()
    generate_third_party()


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand without hatchling
    pass
else:

    class ProtosBuildHook(BuildHookInterface[Any]):
        """Generates before the wheel (or the editable install) is made."""

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            main()
            if version == "standard" and list(DOMAIN.glob("*/*.abi3.so")):
                platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
                build_data |= {"pure_python": False, "tag": f"cp311-abi3-{platform}"}


if __name__ == "__main__":
    sys.exit(main())
