"""Every manifest of the repository against the schemas of the Kubernetes it is written for, without any network.

    python hack/manifests.py

The rendered chart in each of its variants, crds/, samples/ and what the local cluster gets must be valid, and some of
the bad manifests of tests/contract must be refused, so that a check that finds nothing cannot go unseen. For the same
reason every kind that a template can make must be in a variant. The schemas come from the OpenAPI document inside the
pinned k8s.io/kubernetes module (made once, kept in the cache under the module's version) and from crds/. CEL rules are
not schemas: tests/contract applies those.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "hack" / folder) for folder in ("", "toolchain", "cluster")]  # last: they must shadow nothing

import json_schemas  # noqa: E402
from local_cluster import manifests as local_cluster  # noqa: E402
from local_cluster.addresses import Plan  # noqa: E402
from pinned_tools import cache, catalog, gotool  # noqa: E402
from pinned_tools.progress import Step  # noqa: E402

KUBERNETES = "k8s.io/kubernetes"
PINS = ROOT / "hack" / "toolchain" / "kubernetes"
BUILD = ROOT / "build" / "manifests"
BAD = ROOT / "tests" / "contract" / "resources" / "bad"
CHART = ROOT / "charts" / "hypermesh"
CHART_VARIANTS: dict[str, tuple[str, ...]] = {
    "default": (),
    "newer-server": ("--api-versions=admissionregistration.k8s.io/v1/MutatingAdmissionPolicy",),
    "no-definitions": ("--set=crds.enabled=false",),
    "production": ("--set=ledger.proofs=production,ledger.storage.className=fast,operator.replicas=2",),
    "own-pool": ("--set=agent.poolPath=/srv/pool",),
    "another-image": ("--set=image.repository=example.org/a,image.id=sha256:1,image.pullSecrets[0].name=pull",),
    "wrapped-keys": ("--set=keyEncryption.volume.csi.driver=secrets-store.csi.k8s.io",),
    "narrow-network": (
        "--set=networkPolicy.agentCIDRs={fd00:10::/64},networkPolicy.apiServerCIDRs={fd00:10::2/128}",
        "--set=networkPolicy.dnsPeers[0].namespaceSelector.matchLabels.name=kube-system",
        "--set=networkPolicy.metricsPeers[0].podSelector.matchLabels.app=prometheus",
    ),
    "removal": ("--set=agent.removal=true",),
    "monitored": (
        "--set=monitoring.dashboards.enabled=true,monitoring.rules.enabled=true,monitoring.podMonitor.enabled=true",
    ),
    "four-validators": ("--set=ledger.validators=4",),
}
"""Arguments of `helm template`. What a template makes in none of them is seen by no schema: `unseen` finds it."""
SOURCE = re.compile(r"^# Source: hypermesh/(templates/\S+)$", re.MULTILINE)
KIND = re.compile(r"^kind: (\w+)$", re.MULTILINE)
INVALID = "statusInvalid"
FOREIGN = ("PodMonitor", "PrometheusRule")
"""Kinds of the Prometheus operator, whose schemas are not in what is pinned here; tests/chart looks at them."""
MUST_FAIL = ("allocation-misspelt-field.yaml", "allocation-no-type.yaml", "asset-paused-as-text.yaml")
"""Of the bad manifests, some that break the schema and not only a CEL rule."""


def kubernetes_schemas() -> Path:
    """The folder of Kubernetes' own schemas; made when it is not in the cache."""
    go_mod = (PINS / "go.mod").read_text()
    version = catalog.version_of(KUBERNETES, go_mod)
    root = cache.cache_root(os.environ)
    maker = Path(json_schemas.__file__).read_bytes()
    target = cache.entry(root, "kubernetes-schemas", cache.key_of([("maker", maker)], [version]))
    with cache.being_made(target) as scratch:
        if scratch is not None:
            with Step(f"making schemas of {KUBERNETES} {version}", 1, 1):
                openapi = openapi_of(gotool.find_or_fetch(root, catalog.go_required(go_mod)))
                write(json_schemas.of_kubernetes(openapi), scratch / target.name)
                (scratch / target.name / "metadata.json").write_text(json.dumps(json_schemas.object_meta(openapi)))
    return target


def openapi_of(go: Path) -> dict[str, Any]:
    """The OpenAPI document in the pinned module, which `go` brings into its module cache when it is not there."""
    done = subprocess.run(
        [str(go), "mod", "download", "-json", KUBERNETES],
        cwd=PINS,
        env={**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode != 0:
        raise gotool.ToolchainError(f"`go mod download {KUBERNETES}` failed: {(done.stderr or done.stdout)[-400:]}")
    text = (Path(json.loads(done.stdout)["Dir"]) / "api" / "openapi-spec" / "swagger.json").read_text()
    return dict(json.loads(text))


def write(schemas: dict[str, dict[str, Any]], folder: Path) -> None:
    """Each schema under its file name."""
    for name, schema in schemas.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(schema))


def own_schemas(kubernetes: Path) -> Path:
    """The folder of the schemas of crds/, always made anew."""
    metadata = json.loads((kubernetes / "metadata.json").read_text())
    crds = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    for crd in crds:
        write(json_schemas.of_crd(crd, metadata), BUILD / "schemas")
    return BUILD / "schemas"


def rendered_chart() -> Iterator[Path]:
    """The chart in every variant, a file each."""
    for name, arguments in CHART_VARIANTS.items():
        command = [str(ROOT / "build/bin/helm"), "template", "hypermesh", str(CHART), *arguments]
        done = subprocess.run(
            [*command, "--namespace", "hypermesh-system"], capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode != 0:
            raise SystemExit(f"error: helm template, variant {name}: {done.stderr}")
        yield saved(f"chart-{name}.yaml", done.stdout)


def unseen(templates: Mapping[str, str], rendered: Iterable[str]) -> list[str]:
    """`path: kind` of what `templates` (path in the chart -> text) can make and none of the renderings has."""
    made: set[tuple[str, str]] = set()
    for text in rendered:
        _, *pieces = SOURCE.split(text)  # path, document, path, document, ...
        for path, document in zip(pieces[::2], pieces[1::2], strict=True):
            made |= {(path, ""), *((path, kind) for kind in KIND.findall(document))}
    wanted = {(path, kind) for path, text in templates.items() for kind in ("", *KIND.findall(text))}
    return [f"{path}: {kind or 'any document'}" for path, kind in sorted(wanted - made)]


def saved(name: str, text: str) -> Path:
    """A generated manifest as a file, so that kubeconform's message names it."""
    path = BUILD / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def kubeconform(files: Iterable[Path], folders: Iterable[Path]) -> list[dict[str, Any]]:
    """kubeconform's findings, one a document: filename, kind, name, status (statusValid and others), msg."""
    places = [word for folder in folders for word in ("-schema-location", f"{folder}/{json_schemas.LAYOUT}")]
    command = [
        str(ROOT / "build/bin/kubeconform"),
        "-strict",
        "-verbose",
        "-output",
        "json",
        "-skip",
        ",".join(FOREIGN),
        *places,
    ]
    done = subprocess.run(
        [*command, *map(str, files)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    if done.stderr or not done.stdout:
        raise SystemExit(f"error: kubeconform: {done.stderr or 'says nothing'}")
    return list(json.loads(done.stdout)["resources"])


def right_manifests() -> list[Path]:
    """All manifests that must be valid."""
    cluster = local_cluster.everything(Plan.of(BUILD))
    own = [*(ROOT / "crds").glob("*.yaml"), *(ROOT / "samples").glob("*.yaml")]
    return [*rendered_chart(), saved("local-cluster.json", json.dumps(cluster)), *sorted(own)]


def broken_manifests() -> list[Path]:
    """Files that must be refused: of our kinds, and one misspelt field in one of Kubernetes'."""
    chart = (BUILD / "chart-default.yaml").read_text()
    misspelt = saved("broken-chart.yaml", chart.replace("serviceAccountName:", "serviceAccountNames:"))
    return [misspelt, *(BAD / name for name in MUST_FAIL)]


def main() -> int:
    """Prints what is wrong; 1 when anything is."""
    kubernetes = kubernetes_schemas()
    folders = [kubernetes, own_schemas(kubernetes)]
    right = right_manifests()
    templates = {str(path.relative_to(CHART)): path.read_text() for path in (CHART / "templates").rglob("*.yaml")}
    missing = unseen(templates, [path.read_text() for path in right if path.name.startswith("chart-")])
    for what in missing:
        print(f"{what}: no variant of the chart makes it: add one to CHART_VARIANTS")
    findings = kubeconform(right, folders)
    wrong = [item for item in findings if item["status"] != "statusValid" and item["kind"] not in FOREIGN]
    for item in wrong:
        print(f"{item['filename']}: {item['kind']} {item['name']}: {item['msg']}")
    broken = broken_manifests()
    refused = {item["filename"] for item in kubeconform(broken, folders) if item["status"] == INVALID}
    passed = [path for path in broken if str(path) not in refused]
    for path in passed:
        print(f"{path}: is broken and was not refused")
    print(f"{len(findings)} documents, {len(wrong)} wrong; {len(broken)} broken files, {len(passed)} not refused")
    return 1 if missing or wrong or passed else 0


if __name__ == "__main__":
    raise SystemExit(main())
