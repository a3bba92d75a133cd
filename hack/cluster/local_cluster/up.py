"""`up`: makes the cluster run, whatever part of it already does.

    check -> record -> switch -> control plane -> nodes -> images -> objects -> wait until nodes and DNS are ready
Each machine is recorded before it may run (see machine), so `down` undoes any prefix of this.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from local_cluster import cgroups, images, kubectl, manifests, network, paths, preflight, provision, volumes
from local_cluster.addresses import CONTROL_PLANE, MAX_NODES, SWITCH, node_name
from local_cluster.control_plane import API_SEEN
from local_cluster.down import power_off
from local_cluster.machine import Root, Specification, Starting
from local_cluster.node import KERNEL_SETTINGS, KUBERNETES, VOLUMES, Node
from local_cluster.nodes import import_image
from local_cluster.state import ClusterError, State, load

CONTROL_PLANE_TOOLS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
NODE_TOOLS = ("kubelet", "kube-proxy", "containerd", "containerd-shim-runc-v2", "ctr", "coredns")
COMMANDS = "commands"
API_SECONDS = 90.0
READY_SECONDS = 180


def up(directory: Path, nodes: int, cache: Path, binaries: Path) -> State:
    """Brings the cluster up with at least `nodes` nodes and returns its record; raises ClusterError."""
    started = time.monotonic()
    if not 1 <= nodes <= MAX_NODES:
        raise ClusterError(f"NODES={nodes} is out of range; choose 1 to {MAX_NODES}")
    preflight.check((*CONTROL_PLANE_TOOLS, *NODE_TOOLS))
    state = load(directory)
    network.refuse_foreign(state.plan, directory)
    state.nodes = max(nodes, state.nodes)
    state.save()
    # what this command runs (kubectl, ctr) belongs to the cluster, so that `down` ends it if this command is shot
    cgroups.join(f"{state.plan.cgroup}/{COMMANDS}", os.getpid())
    say(started, f"cluster {state.plan.identity}: {state.nodes} node(s), prefix {state.plan.prefix}")
    base = images.base_images(cache, binaries)
    provision.control_plane(state)
    start_machines(state, binaries, cache)
    say(started, "machines started")
    api = provision.api_server(state, binaries)
    certificate = provision.authority(state).certificate
    with ThreadPoolExecutor(max_workers=state.nodes) as pool:
        imports = [pool.submit(import_image, state, node_name(number), base) for number in range(1, state.nodes + 1)]
        kubectl.wait_for_api(state.plan.api_url, certificate, API_SECONDS, Path(api.log("kube-apiserver")))
        mark_api_seen(state)
        say(started, "API server ready")
        apply_objects(state, binaries)
        volumes.offer_again(state, binaries)
        for done in imports:
            done.result()
    wait_ready(state, binaries)
    say(started, "nodes and DNS ready")
    return state


def say(started: float, text: str) -> None:
    """One line of progress with the seconds so far."""
    print(f"{time.monotonic() - started:6.1f} s  {text}", file=sys.stderr, flush=True)


def start_machines(state: State, binaries: Path, cache: Path) -> None:
    """Starts every machine that does not run; a new switch means new cables, hence new machines all round."""
    nodes = [
        Node(state.plan, number, binaries, state.machine_directory(node_name(number)))
        for number in range(1, state.nodes + 1)
    ]
    if not state.running(SWITCH):
        power_off(state, [SWITCH, CONTROL_PLANE, *(node.name for node in nodes)])
        start_switch(state)
    if not state.running(CONTROL_PLANE):
        power_off(state, [CONTROL_PLANE])
        start(state, control_plane_machine(state, binaries, cache), number=0)
    for node in nodes:
        if not state.running(node.name):
            power_off(state, [node.name])
            provision.node(state, node)
            start(state, node_machine(state, node, cache), number=node.number)
    network.ip(network.cluster_routes(state.plan, state.plan.host_link, state.nodes))
    network.ip(network.cluster_routes(state.plan, network.UPLINK, state.nodes), pid=state.machines[CONTROL_PLANE].pid)
    for node in nodes if len(nodes) > 1 else []:
        routes = network.cluster_routes(state.plan, network.UPLINK, state.nodes, own=node.number)
        network.ip(routes, pid=state.machines[node.name].pid)


def mark_api_seen(state: State) -> None:
    """Lets the API server's clients start; see control_plane.API_SEEN."""
    (state.machine_directory(CONTROL_PLANE) / API_SEEN).touch()
    for number in range(1, state.nodes + 1):
        (state.machine_directory(node_name(number)) / "kubernetes" / API_SEEN).touch()


def start_switch(state: State) -> None:
    """The machine that is nothing but the network between the others."""
    specification = Specification(SWITCH, f"{state.plan.cgroup}/{SWITCH}", network.SWITCH_SYSCTLS)
    starting = Starting(specification, state.machine_directory(SWITCH))
    state.machines[SWITCH] = starting.process
    state.save()
    network.connect_host(state.plan, state.directory, starting.process.pid)
    starting.go()


def start(state: State, specification: Specification, number: int) -> None:
    """Starts one machine: record, plug in, let go."""
    starting = Starting(specification, state.machine_directory(specification.name))
    state.machines[specification.name] = starting.process
    state.save()
    switch = state.machines[SWITCH].pid
    network.plug(state.plan, specification.name, number, starting.process.pid, switch)
    starting.go()


def control_plane_machine(state: State, binaries: Path, cache: Path) -> Specification:
    """The control plane: four daemons; of the host's disk they write to their own directory only."""
    api = provision.api_server(state, binaries)
    services = (api.etcd(), api.apiserver(), api.controller_manager(state.plan.pods), api.scheduler())
    kept = (str(api.directory), str(api.certificates))
    root = Root(scratch_directory(api.directory), tuple((path, path) for path in kept), {}, visible(cache))
    cgroup = f"{state.plan.cgroup}/{CONTROL_PLANE}"
    return Specification(CONTROL_PLANE, cgroup, network.SWITCH_SYSCTLS, root, services)


def scratch_directory(directory: Path) -> str:
    """Where a machine assembles its root, in its own mount namespace; on the host it stays an empty directory."""
    scratch = directory / "root"
    scratch.mkdir(exist_ok=True)
    return str(scratch)


def visible(cache: Path) -> tuple[str, ...]:
    """What a machine must find at the host's path: the programs, and the links that lead to them."""
    return str(paths.CHECKOUT), str(cache)


def node_machine(state: State, node: Node, cache: Path) -> Specification:
    """A node: three daemons, files of its own."""
    disk = node.directory
    binds = (
        (str(disk / "containerd"), "/var/lib/containerd"),
        (str(disk / "kubelet"), "/var/lib/kubelet"),
        (str(disk / "hypermesh"), "/var/lib/hypermesh"),
        (str(disk / "pod-logs"), "/var/log/pods"),
        (str(disk / "kubernetes"), KUBERNETES),
        (str(provision.volumes(state)), VOLUMES),
    )
    root = Root(scratch_directory(node.directory), binds, node.files(), visible(cache), KERNEL_SETTINGS)
    cgroup = f"{state.plan.cgroup}/{node.name}"
    return Specification(node.name, cgroup, network.NODE_SYSCTLS, root, node.services())


def apply_objects(state: State, binaries: Path) -> None:
    """DNS, storage class and volumes."""
    body = json.dumps(manifests.everything(state.plan))
    arguments = ("apply", "--server-side", "--force-conflicts", "--field-manager=local-cluster", "-f", "-")
    kubectl.kubectl(binaries, state.kubeconfig, *arguments, stdin=body)


def wait_ready(state: State, binaries: Path) -> None:
    """Waits until every node and the DNS service are ready."""
    timeout = f"--timeout={READY_SECONDS}s"
    names = [f"node/{node_name(number)}" for number in range(1, state.nodes + 1)]
    wait_for_nodes(state, binaries, names)
    waits: Sequence[tuple[str, ...]] = (
        ("wait", "--for=condition=Ready", timeout, *names),
        ("-n", "kube-system", "wait", "--for=condition=Available", timeout, "deployment/coredns"),
    )
    for arguments in waits:
        kubectl.kubectl(binaries, state.kubeconfig, *arguments, seconds=READY_SECONDS + 10)


def wait_for_nodes(state: State, binaries: Path, names: Sequence[str]) -> None:
    """Waits until every node has registered itself (`kubectl wait` fails on an object that is not there)."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            kubectl.kubectl(binaries, state.kubeconfig, "get", *names, "-o", "name")
        except ClusterError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return
