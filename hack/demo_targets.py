"""Where the demo runs: the embedded cluster, the current context, or kind."""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from demo_steps import Failed, Story

NAMESPACE = "hypermesh-system"
AGENTS = ("daemonset/hypermesh-agent", "-n", NAMESPACE)
MAYBE = ("--ignore-not-found", "-o", "name")
RELEASE_SECONDS = 150
"""More than the operator waits for the ledger."""
REMOVAL_SECONDS = 120
OFFSET = 4096
"""Where in the region the demo writes."""
PROGRAM = f"""
import asyncio, pathlib, sys
from hypermesh_clients.resource import ResourceClient
access = pathlib.Path("/access")
text = {{part: (access / part).read_text() for part in ("address", "token", "port", "ca.crt")}}
async def main():
    async with ResourceClient(
        text["address"], text["token"], text["ca.crt"].encode(), port=int(text["port"])
    ) as client:
        message = sys.argv[1].encode()
        await client.write({OFFSET}, message)
        sys.stdout.write((await client.read({OFFSET}, len(message))).decode())
asyncio.run(main())
"""
"""Run in a Pod where this machine has no route to the cluster's addresses."""


class Target:
    """A cluster to install into. `env` selects its kubeconfig for kubectl, helm and the plugin."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env: dict[str, str] = {
            "PATH": os.pathsep.join(
                [str(root / "build" / "bin"), str(root / ".venv" / "bin"), os.environ.get("PATH", "")]
            ),
            "HYPERMESH_NAMESPACE": NAMESPACE,
        }
        os.environ["PATH"] = self.env["PATH"]

    def up(self, story: Story) -> None:
        raise NotImplementedError

    def provide_image(self, story: Story) -> None:
        raise NotImplementedError

    def helm_values(self) -> list[str]:
        return []

    def open_route(self, story: Story) -> None:
        """Make proxy addresses reachable from here, where that can be done."""

    def write_and_read(self, story: Story, name: str, message: str, title: str) -> str:
        """Writes `message` at the Allocation's address and returns what is read there afterwards."""
        raise NotImplementedError

    def goodbye(self) -> str:
        raise NotImplementedError

    def clean(self, story: Story) -> None:
        raise NotImplementedError

    def _tools(self, story: Story) -> None:
        story.run("build pinned tools", [sys.executable, str(self.root / "hack" / "toolchain")], stream=True)
        story.run("native library", [sys.executable, str(self.root / "hack" / "liboqs" / "build.py")])

    def _image(self, story: Story) -> Path:
        story.run("build the image", [sys.executable, str(self.root / "hack" / "image")], stream=True)
        return self.root / "build" / "image" / "hypermesh.tar"


class Embedded(Target):
    """A real cluster on this machine, made by hack/cluster; needs root."""

    def __init__(self, root: Path, nodes: int) -> None:
        super().__init__(root)
        self.nodes = nodes
        self.cluster = [sys.executable, str(root / "hack" / "cluster")]

    def up(self, story: Story) -> None:
        if os.geteuid() != 0:
            raise Failed(
                "the embedded cluster needs root (network namespaces, containerd, nftables). Run `sudo make demo`, "
                "or use a cluster you have: `make demo CLUSTER=current`, or `make demo CLUSTER=kind` where Docker "
                "or podman runs."
            )
        self._tools(story)
        story.run(
            f"start a cluster of {self.nodes} node(s)",
            [*self.cluster, "up"],
            env={**self.env, "NODES": str(self.nodes)},
            stream=True,
        )
        self.env["KUBECONFIG"] = story.output([*self.cluster, "kubeconfig"])

    def provide_image(self, story: Story) -> None:
        story.run("load the image into the nodes", [*self.cluster, "load", str(self._image(story))], env=self.env)

    def helm_values(self) -> list[str]:
        built = json.loads((self.root / "build" / "image" / "hypermesh.json").read_text())
        return ["--set", "image.pullPolicy=Never", "--set", f"image.id={built['id']}"]

    def open_route(self, story: Story) -> None:
        """A route to the cluster's /64 through the first node; it goes away with the cluster's link."""
        prefix = story.output(
            ["kubectl", "-n", NAMESPACE, "get", "configmap", "hypermesh-trust", "-o", "jsonpath={.data.prefix}"],
            env=self.env,
        )
        path = "jsonpath={.status.addresses[?(@.type=='InternalIP')].address}"
        node = story.output(["kubectl", "get", "node", "node-1", "-o", path], env=self.env)
        story.run(f"route {prefix} to the cluster", ["ip", "-6", "route", "replace", prefix, "via", node])

    def write_and_read(self, story: Story, name: str, message: str, title: str) -> str:
        where = [name, "--offset", str(OFFSET)]
        story.run(title, ["kubectl-hypermesh", "write", *where], env=self.env, stdin=message)
        return story.output(["kubectl-hypermesh", "read", *where, "--length", str(len(message))], env=self.env)

    def goodbye(self) -> str:
        return "The cluster is still up: export KUBECONFIG=$(make kubeconfig). Remove it with: make demo-clean"

    def clean(self, story: Story) -> None:
        story.run("take the cluster down", [*self.cluster, "down"], env=self.env)


class Current(Target):
    """Whatever the current kubeconfig context is; its nodes must be able to pull IMAGE."""

    def up(self, story: Story) -> None:
        if shutil.which("kubectl") is None or shutil.which("helm") is None:
            self._tools(story)
        context = story.output(["kubectl", "config", "current-context"], env=self.env)
        server = story.output(
            ["kubectl", "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"],
            env=self.env,
        )
        story.say(f"Installing into the current context: {context} ({server}), namespace {NAMESPACE}")
        story.run("native library", [sys.executable, str(self.root / "hack" / "liboqs" / "build.py")])

    def provide_image(self, story: Story) -> None:
        if ":" not in os.environ.get("IMAGE", "").rpartition("/")[2]:
            raise Failed(
                "CLUSTER=current needs IMAGE=<repository>:<tag> that its nodes can pull; build it with `make image` "
                "and push build/image/hypermesh.tar to your registry"
            )

    def helm_values(self) -> list[str]:
        repository, _, tag = os.environ["IMAGE"].rpartition(":")
        return ["--set", f"image.repository={repository}", "--set-string", f"image.tag={tag}"]

    def image(self) -> str:
        """The image that the cluster's nodes know."""
        return os.environ["IMAGE"]

    def write_and_read(self, story: Story, name: str, message: str, title: str) -> str:
        """From a Pod with the access Secret mounted: this machine may have no route to the addresses."""
        container = {
            "name": "demo",
            "image": self.image(),
            "imagePullPolicy": "IfNotPresent",
            "command": ["python3", "-c", PROGRAM, message],
            "volumeMounts": [{"name": "access", "mountPath": "/access", "readOnly": True}],
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "hypermesh-demo"},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "containers": [container],
                "volumes": [{"name": "access", "secret": {"secretName": f"{name}-access"}}],
            },
        }
        delete = ["kubectl", "delete", "pod", "hypermesh-demo", "--ignore-not-found"]
        story.output(delete, env=self.env)
        story.run(
            "start a Pod with the access Secret", ["kubectl", "apply", "-f", "-"], env=self.env, stdin=json.dumps(pod)
        )
        done = "--for=jsonpath={.status.phase}=Succeeded"
        story.run(title, ["kubectl", "wait", done, "pod/hypermesh-demo", "--timeout=60s"], env=self.env)
        answer = story.output(["kubectl", "logs", "hypermesh-demo"], env=self.env)
        story.output(delete, env=self.env)
        return answer

    def goodbye(self) -> str:
        return "Remove it with: make demo-clean CLUSTER=current"

    def clean(self, story: Story) -> None:
        context = story.output(["kubectl", "config", "current-context"], env=self.env)
        story.say(f"Removing from the current context: {context}, namespace {NAMESPACE}")
        if story.output(["kubectl", "get", "crd", "allocations.hypermesh.online", *MAYBE], env=self.env):
            self._release(story)
        if story.output(["kubectl", "get", *AGENTS, *MAYBE], env=self.env):
            self._clean_nodes(story)
        story.run(
            "uninstall the chart",
            ["helm", "uninstall", "hypermesh", "-n", NAMESPACE, "--ignore-not-found"],
            env=self.env,
        )
        story.say(
            "Kept, because later installs go on with it (definitions, Assets, keys, ledger); to remove it:\n"
            "  kubectl delete crd assets.hypermesh.online allocations.hypermesh.online proxymappings.hypermesh.online\n"
            f"  kubectl delete namespace {NAMESPACE}\n"
            "Each node keeps its key and plots in /var/lib/hypermesh. More: docs/how-to/install.md, Leave"
        )

    def _release(self, story: Story) -> None:
        """Deletes the demo's Allocation. Raises Failed when there are others: uninstalling would make them immortal."""
        sample = str(self.root / "samples" / "allocation-memory.yaml")
        with suppress(Failed):  # what doesn't go is seen below
            story.run(
                "delete the demo's Allocation",
                ["kubectl", "delete", "-f", sample, "--ignore-not-found", f"--timeout={RELEASE_SECONDS}s"],
                env=self.env,
            )
        left = story.output(["kubectl", "get", "allocations", "--all-namespaces", "--no-headers"], env=self.env)
        names = ["/".join(line.split()[:2]) for line in left.splitlines()]
        if names:
            raise Failed(
                "Allocations are left, and only the operator, which would go now, lets go of them: "
                f"{', '.join(names[:10])}{', …' * (len(names) > 10)}. "
                "Delete them with `kubectl delete allocations --all --all-namespaces` and clean again. "
                "If the operator is gone already: docs/how-to/install.md, Leave, has the way out"
            )

    def _clean_nodes(self, story: Story) -> None:
        """Takes off the nodes what agents put there; a node that doesn't answer keeps it, and is told of."""
        chart = str(self.root / "charts" / "hypermesh")
        removal = ["--reset-then-reuse-values", "--set", "agent.removal=true"]
        try:
            story.run(
                "have the nodes cleaned",
                ["helm", "upgrade", "hypermesh", chart, "-n", NAMESPACE, *removal],
                env=self.env,
            )
            rollout = ["kubectl", "rollout", "status", *AGENTS, f"--timeout={REMOVAL_SECONDS}s"]
            story.run("wait until all nodes are clean", rollout, env=self.env)
        except Failed as failure:
            story.say(f"Not all nodes are clean; install again to try again. {failure}")


class Kind(Current):
    """A kind cluster named hypermesh, IPv6, in Docker or podman."""

    NAME = "hypermesh"

    def up(self, story: Story) -> None:
        if shutil.which("docker") is None and shutil.which("podman") is None:
            raise Failed("CLUSTER=kind needs Docker or podman; without them use `make demo` as root (embedded cluster)")
        self._tools(story)
        story.run("build kind", [sys.executable, str(self.root / "hack" / "toolchain"), "kind"], stream=True)
        kubeconfig = self.root / "build" / "demo" / "kind.kubeconfig"
        self.env["KUBECONFIG"] = str(kubeconfig)
        config = {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "networking": {"ipFamily": "ipv6"},
        }
        file = self.root / "build" / "demo" / "kind.json"
        file.write_text(json.dumps(config))
        if self.NAME not in story.output(["kind", "get", "clusters"]).split():
            story.run(
                "create the kind cluster",
                ["kind", "create", "cluster", "--name", self.NAME, "--config", str(file)],
                env=self.env,
                stream=True,
            )
        else:
            story.run("select the kind cluster", ["kind", "export", "kubeconfig", "--name", self.NAME], env=self.env)

    def provide_image(self, story: Story) -> None:
        story.run(
            "load the image into kind",
            ["kind", "load", "image-archive", str(self._image(story)), "--name", self.NAME],
            env=self.env,
        )

    def helm_values(self) -> list[str]:
        built = json.loads((self.root / "build" / "image" / "hypermesh.json").read_text())
        return ["--set", "image.pullPolicy=Never", "--set", f"image.id={built['id']}"]

    def image(self) -> str:
        return "docker.io/library/hypermesh:dev"

    def goodbye(self) -> str:
        return "Remove it with: make demo-clean CLUSTER=kind"

    def clean(self, story: Story) -> None:
        story.run("delete the kind cluster", ["kind", "delete", "cluster", "--name", self.NAME], env=self.env)


def make_target(kind: str, nodes: int, root: Path) -> Target:
    """The target named on the command line."""
    if kind == "embedded":
        return Embedded(root, nodes)
    if kind == "current":
        return Current(root)
    return Kind(root)
