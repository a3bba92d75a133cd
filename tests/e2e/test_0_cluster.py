"""The local cluster itself, in a state directory of its own, so that it disturbs none that runs.

Up, used in every way the rest of the project relies on, power cut, resumed, shot half-way, and nothing left behind.
Observed from outside: /proc, /sys, ip, nft and kubectl; none of it is asked of the code under test.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "hack" / "cluster"
KUBECTL = ROOT / "build" / "bin" / "kubectl"
IMAGE = "localhost/test/busybox:1"
BUSYBOX = "/bin/busybox"
pytestmark = [pytest.mark.root]

sys.path.append(str(PROGRAM))
from local_cluster import oci, preflight  # noqa: E402  the image builder and package installer are tools here
from local_cluster.addresses import Plan  # noqa: E402  names only; what the kernel has is compared with them


def eventually(what: str, probe: Callable[[], bool], seconds: float = 60) -> None:
    """Waits for a probe, at most `seconds`."""
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.05)


@dataclass(frozen=True)
class Traces:
    """What the machine shows of a cluster: every list is empty when nothing is left."""

    links: list[str]
    routes: list[str]
    mounts: list[str]
    cgroups: list[str]
    processes: list[str]
    tables: list[str]
    settings: list[str]


def output(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()


def traces(directory: Path) -> Traces:
    """Everything of the cluster in `directory` that this machine has now."""
    plan = Plan.of(directory)
    group = f"/{plan.cgroup}"
    prefix = str(plan.prefix.network_address).removesuffix("::")
    processes = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            groups = (entry / "cgroup").read_text()
            zombie = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            continue
        # an ended process waits as a zombie for whoever adopted it, such as an idle shell; it holds nothing
        if not zombie and int(entry.name) != os.getpid() and (group in groups or str(directory) in command):
            processes.append(f"{entry.name} {command}")
    settings = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "net/ipv6/conf/all/forwarding")
    return Traces(
        links=[line for line in output("ip", "-oneline", "link") if plan.host_link in line],
        routes=[line for line in output("ip", "-6", "route", "show", "table", "all") if line.startswith(prefix)],
        mounts=[line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(directory) in line],
        cgroups=[folder for folder, _, _ in os.walk("/sys/fs/cgroup") if folder.endswith(group)],
        processes=processes,
        tables=output("nft", "list", "tables"),
        settings=[f"{name}={Path('/proc/sys', name).read_text().strip()}" for name in settings],
    )


@dataclass(frozen=True)
class Cluster:
    """A cluster of this test: its directory, and commands as a user types them."""

    directory: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "HYPERMESH_CLUSTER_DIR": str(self.directory), "PYTHONSAFEPATH": "1"}

    def command(self, *words: str, timeout: float = 300) -> str:
        done = subprocess.run(
            [sys.executable, str(PROGRAM), *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def kubectl(self, *words: str, stdin: str = "", timeout: float = 120) -> str:
        done = subprocess.run(
            [str(KUBECTL), f"--kubeconfig={self.directory / 'kubeconfig'}", *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"kubectl {words}: {done.stdout}{done.stderr}"
        return done.stdout

    def in_pod(self, pod: str, script: str) -> str:
        return self.kubectl("exec", pod, "--", BUSYBOX, "sh", "-c", script).strip()

    def pod_ip(self, pod: str) -> str:
        return self.kubectl("get", "pod", pod, "-o", "jsonpath={.status.podIP}")

    def machine_pid(self, name: str) -> int:
        return int(json.loads((self.directory / "state.json").read_text())["machines"][name]["pid"])


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image that holds Debian's static busybox and nothing else."""
    if not Path("/usr/share/doc/busybox-static").exists():
        preflight.install(["busybox-static"])
    path = tmp_path_factory.mktemp("image") / "busybox.tar"
    path.write_bytes(oci.image(IMAGE, {BUSYBOX: Path(BUSYBOX).read_bytes()}, [BUSYBOX], platform.machine()))
    return path


def workload() -> str:
    """A StatefulSet with a claim, one pod a node, and a Service before it."""
    labels = {"app": "web"}
    script = (
        f"{BUSYBOX} hostname > /data/index.html; trap 'exit 0' TERM; {BUSYBOX} httpd -f -p '[::]:8080' -h /data & wait"
    )
    container = {
        "name": "web",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": [BUSYBOX, "sh", "-c", script],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": labels},
    }
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    pods = {"containers": [container], "topologySpreadConstraints": [spread], "terminationGracePeriodSeconds": 5}
    stateful = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "serviceName": "web",
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pods},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
        },
    }
    ports = [{"port": 80, "targetPort": 8080}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": labels, "ports": ports},
    }
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [service, stateful]})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, image: Path) -> Iterator[Cluster]:
    """Two nodes with the workload running; ended after this module, whatever happened."""
    item = Cluster(tmp_path_factory.mktemp("cluster") / "state")
    try:
        item.command("up", "--nodes", "2")
        item.command("load", str(image))
        item.kubectl("apply", "-f", "-", stdin=workload())
        item.kubectl("rollout", "status", "statefulset/web", "--timeout=90s")
        yield item
    finally:
        item.command("down")


def test_every_node_is_ready_and_all_is_ipv6(cluster: Cluster) -> None:
    nodes = json.loads(cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    assert [node["metadata"]["name"] for node in nodes] == ["node-1", "node-2"]
    status = json.loads(cluster.command("status", "-o", "json"))
    assert status["apiReady"]
    assert all(machine["ready"] for machine in status["machines"])
    addresses = [address["address"] for node in nodes for address in node["status"]["addresses"]]
    pods = json.loads(cluster.kubectl("get", "pods", "-A", "-o", "json"))["items"]
    addresses += [entry["ip"] for pod in pods for entry in pod["status"]["podIPs"]]
    services = json.loads(cluster.kubectl("get", "services", "-A", "-o", "json"))["items"]
    addresses += [address for service in services for address in service["spec"]["clusterIPs"]]
    assert [address for address in addresses if "." in address] == []


def test_pods_reach_each_other_by_address_and_name_from_every_node(cluster: Cluster) -> None:
    nodes = {pod: cluster.kubectl("get", "pod", pod, "-o", "jsonpath={.spec.nodeName}") for pod in ("web-0", "web-1")}
    assert set(nodes.values()) == {"node-1", "node-2"}
    for pod, other in (("web-0", "web-1"), ("web-1", "web-0"), ("web-0", "web-0")):
        assert cluster.in_pod(pod, f"{BUSYBOX} wget -qO- http://[{cluster.pod_ip(other)}]:8080/") == other
    for pod in nodes:
        fetch = f"{BUSYBOX} wget -qO- http://web.default.svc.cluster.local/"
        answers = cluster.in_pod(pod, f"for i in $({BUSYBOX} seq 20); do {fetch}; done").split()
        assert len(answers) == 20
        assert set(answers) == {"web-0", "web-1"}, "the Service leads to the pod itself, its node's and the other's"


def test_pods_reach_the_api_server_through_its_service(cluster: Cluster) -> None:
    script = f"{BUSYBOX} nc -w 3 kubernetes.default.svc.cluster.local 443 </dev/null && echo open"
    assert cluster.in_pod("web-1", script) == "open"


def test_the_host_reaches_pods_and_services(cluster: Cluster) -> None:
    service = cluster.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
    for host, expected in ((f"[{cluster.pod_ip('web-1')}]:8080", {"web-1"}), (f"[{service}]", {"web-0", "web-1"})):
        command = [BUSYBOX, "wget", "-qO-", f"http://{host}/"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
        assert answer in expected


def test_a_node_lets_an_agent_do_its_work(cluster: Cluster) -> None:
    """Own cgroups, routes, nftables, loop devices; a shared root; and none of it the host's."""
    script = """
        set -e
        test "$(findmnt -n -o PROPAGATION /)" = shared
        test -e /dev/loop-control
        ip -6 route add 2001:db8:1::/64 dev eth0
        nft add table ip6 probe
        mkdir -p /opt/probe && touch /opt/probe/file
        for controller in /sys/fs/cgroup/memory /sys/fs/cgroup; do
            if mkdir $controller/probe 2>/dev/null; then echo $$ > $controller/probe/cgroup.procs; break; fi
        done
        grep probe /proc/self/cgroup
        hostname
    """
    told = cluster.command("node-exec", "node-2", "--", "sh", "-c", script)
    assert told.splitlines()[-1] == "node-2"
    assert not any("probe" in table for table in output("nft", "list", "tables"))
    assert not any("2001:db8:1::" in route for route in output("ip", "-6", "route"))
    assert not Path("/opt/probe").exists()
    top = Path("/sys/fs/cgroup")
    assert not (top / "memory" / "probe").exists()
    assert not (top / "probe").exists()


@pytest.mark.parametrize("daemon", ["kube-apiserver", "etcd", "containerd", "kubelet"])
def test_a_killed_daemon_comes_back(cluster: Cluster, daemon: str) -> None:
    machine = "control-plane" if daemon in {"kube-apiserver", "etcd"} else "node-1"

    def pid() -> int:
        children = Path(f"/proc/{cluster.machine_pid(machine)}/task/{cluster.machine_pid(machine)}/children")
        for child in children.read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == daemon[:15]:
                return int(child)
        return 0

    before = pid()
    assert before
    os.kill(before, signal.SIGKILL)
    eventually(f"a new {daemon}", lambda: pid() not in {0, before})

    def ready() -> bool:
        return all(item["ready"] for item in json.loads(cluster.command("status", "-o", "json"))["machines"])

    eventually("a ready cluster", ready)
    command = [str(KUBECTL), f"--kubeconfig={cluster.directory / 'kubeconfig'}", "exec", "web-0", "--"]

    def serves() -> bool:
        """Runs a command in a pod: that takes the API server, the kubelet and containerd."""
        done = subprocess.run([*command, BUSYBOX, "true"], capture_output=True, timeout=60, check=False)
        return done.returncode == 0

    eventually("a command in a pod", serves)


def test_a_node_resumes_after_a_power_cut(cluster: Cluster) -> None:
    before = cluster.machine_pid("node-2")
    pod = next(pod for pod in ("web-0", "web-1") if node_of(cluster, pod) == "node-2")
    restarts = "jsonpath={.status.containerStatuses[0].restartCount}"
    earlier = int(cluster.kubectl("get", "pod", pod, "-o", restarts))
    os.kill(before, signal.SIGKILL)
    eventually("the power cut", lambda: not Path(f"/proc/{before}").exists())
    cluster.command("up")
    assert cluster.machine_pid("node-2") != before
    eventually("the pod's restart", lambda: int(cluster.kubectl("get", "pod", pod, "-o", restarts)) > earlier)
    cluster.kubectl("wait", "--for=condition=Ready", f"pod/{pod}", "--timeout=60s")
    assert cluster.in_pod(pod, f"{BUSYBOX} wget -qO- http://[{cluster.pod_ip(pod)}]:8080/") == pod


def node_of(cluster: Cluster, pod: str) -> str:
    return cluster.kubectl("get", "pod", pod, "-o", "jsonpath={.spec.nodeName}")


def test_a_released_volume_is_offered_again(cluster: Cluster) -> None:
    cluster.kubectl("scale", "statefulset/web", "--replicas=1")
    cluster.kubectl("wait", "--for=delete", "pod/web-1", "--timeout=60s")
    volume = cluster.kubectl("get", "pvc", "data-web-1", "-o", "jsonpath={.spec.volumeName}")
    cluster.kubectl("delete", "pvc", "data-web-1", "--timeout=60s")
    phase = ("get", "pv", volume, "-o", "jsonpath={.status.phase}")
    eventually("the volume's release", lambda: cluster.kubectl(*phase) == "Released")
    cluster.command("up")
    eventually("the volume's return", lambda: cluster.kubectl(*phase) == "Available")
    assert list((cluster.directory / "volumes" / volume).iterdir()) == []


def test_nothing_is_left_after_down(cluster: Cluster) -> None:
    """Last use of the module's cluster: it was up with pods, volumes and a broken-off power cut behind it."""
    during = traces(cluster.directory)
    assert during.links
    assert during.routes
    assert during.cgroups
    assert len(during.processes) > 10
    cluster.command("down")
    after = traces(cluster.directory)
    assert after == Traces([], [], [], [], [], after.tables, after.settings)
    assert after.tables == during.tables
    assert not cluster.directory.exists()


@pytest.mark.parametrize("stage", ["switch", "control-plane", "node-1", "API server ready"])
def test_nothing_is_left_when_up_was_shot(tmp_path: Path, stage: str) -> None:
    before = traces(tmp_path / "state")
    cluster = Cluster(tmp_path / "state")
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), "up"],
            env=cluster.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def reached() -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()
        record = tmp_path / "state" / "state.json"
        recorded = record.exists() and stage in json.loads(record.read_text())["machines"]
        return recorded or stage in (tmp_path / "log").read_text()

    eventually(stage, reached)
    process.kill()
    process.wait(10)
    cluster.command("down")
    assert traces(tmp_path / "state") == before
    assert not (tmp_path / "state").exists()


def test_kernel_settings_and_routes_of_the_host_stay(tmp_path: Path) -> None:
    """A kubelet would set vm.overcommit_memory and kernel.panic for the whole machine; here it may not."""
    cluster = Cluster(tmp_path / "state")
    before = traces(cluster.directory)
    try:
        cluster.command("up")
        assert traces(cluster.directory).settings == before.settings
    finally:
        cluster.command("down")
    assert traces(cluster.directory) == before


def test_a_link_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "state")
    link = Plan.of(cluster.directory).host_link
    subprocess.run(["ip", "link", "add", link, "type", "bridge"], check=True, timeout=10)
    try:
        for command in ("up", "down"):
            done = subprocess.run(
                [sys.executable, str(PROGRAM), command],
                env=cluster.environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 1
            assert f"ip link delete {link}" in done.stderr
        assert any(link in line for line in output("ip", "-oneline", "link"))
    finally:
        subprocess.run(["ip", "link", "delete", link], check=True, timeout=10)
