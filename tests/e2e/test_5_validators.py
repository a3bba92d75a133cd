"""`helm upgrade --set ledger.validators=4` of an installation that is in use: four validators, and the same chain.

Beside the growing ledger a tenant's bytes are read, a pause of seconds allowed, and Allocations are asked for: each
becomes Ready. Afterwards one validator, the one that began the chain, stands still and isn't missed. There is no way
back to one.
"""

from __future__ import annotations

import json

import pytest

from .support import NAMESPACE, Mesh, allocation, eventually, run

VALIDATORS = 4
PODS = {f"hypermesh-ledger-{number}" for number in range(VALIDATORS)}
BYTES = "kept while the ledger grows"
PROCESSES = "$(grep -lzx POD_NAME={pod} /proc/[0-9]*/environ 2>/dev/null)"
"""Of a pod, as paths, in its node."""
SIGNAL = f"for p in {PROCESSES}; do kill -{{signal}} ${{{{p//[!0-9]/}}}}; done"
STATES = f"for p in {PROCESSES}; do grep State ${{{{p%/environ}}}}/status; done"


def upgrade(mesh: Mesh, *words: str, check: bool = True) -> str:
    """As in docs/how-to/grow-the-ledger.md."""
    command = ["helm", "upgrade", "hypermesh", "charts/hypermesh", "-n", NAMESPACE, "--reuse-values", *words]
    done = run(command, check=check, KUBECONFIG=mesh.kubeconfig)
    return done.stdout + done.stderr


def active(mesh: Mesh) -> set[str]:
    """Pods that `kubectl hypermesh ledger validators` shows as validators; none while the ledger does not answer."""
    done = mesh.plugin("ledger", "validators", "-o", "json", check=False)
    if done.returncode != 0:
        return set()
    return {each["name"] for each in json.loads(done.stdout) if each["state"] == "Active"}


def ready(mesh: Mesh, name: str) -> None:
    mesh.kubectl("wait", "--for=condition=Ready", f"allocation/{name}", "--timeout=180s", timeout=200)


def kept(mesh: Mesh) -> bool:
    """Whether the bytes can be read; refused for seconds where a node's watch moved to a ledger that is behind."""
    done = mesh.plugin("read", "kept", "--length", str(len(BYTES)), check=False)
    assert done.returncode != 0 or done.stdout == BYTES
    return done.returncode == 0


def address(mesh: Mesh, name: str) -> str:
    return mesh.kubectl("get", "allocation", name, "-o", "jsonpath={.status.proxyAddress}")


@pytest.fixture(scope="module")
def grown(three: Mesh) -> list[str]:
    """Names of the Allocations that were made: before it grew, and while it did."""
    three.apply([allocation("kept", "memory", "1Mi")])
    ready(three, "kept")
    three.plugin("write", "kept", stdin=BYTES)
    chain, where = three.ledger()["chain"], address(three, "kept")
    names = ["kept"]
    upgrade(three, "--set", f"ledger.validators={VALIDATORS}")

    def used_until_four_are_active() -> bool:
        names.append(f"during-{len(names)}")
        three.apply([allocation(names[-1], "memory", "1Mi")])
        eventually("the bytes are there", lambda: kept(three), seconds=60, pause=1)
        return active(three) == PODS

    eventually("four validators", used_until_four_are_active, seconds=240, pause=1)
    for name in names:
        ready(three, name)
    assert three.ledger()["chain"] == chain
    assert address(three, "kept") == where
    return names


def test_one_validator_has_grown_to_four_on_three_machines(three: Mesh, grown: list[str]) -> None:
    pods = three.core.list_namespaced_pod(NAMESPACE, label_selector="app.kubernetes.io/component=ledger").items
    assert {pod.spec.node_name for pod in pods} == {"node-1", "node-2", "node-3"}
    assert three.plugin("check", "--wait", "180s").returncode == 0


def test_each_of_the_four_holds_every_allocation(three: Mesh, grown: list[str]) -> None:
    for number in range(VALIDATORS):

        def held(number: int = number) -> bool:
            state = three.ledger(number)
            names = {each["name"] for each in state["allocations"] if each["state"] == "ACTIVE"}
            return names >= set(grown)

        eventually(f"hypermesh-ledger-{number} has them all", held, seconds=60, pause=1)


def test_the_validator_that_began_the_chain_is_not_missed(three: Mesh, grown: list[str]) -> None:
    """Stopped, not killed: its connections stay open, and nobody answers."""
    pod = "hypermesh-ledger-0"
    node = three.core.read_namespaced_pod(pod, NAMESPACE).spec.node_name

    def signal(name: str) -> None:
        three.node_exec(node, "bash", "-c", SIGNAL.format(pod=pod, signal=name))

    signal("STOP")
    try:
        three.apply([allocation("without-the-founder", "memory", "1Mi")])
        ready(three, "without-the-founder")
        states = three.node_exec(node, "bash", "-c", STATES.format(pod=pod)).splitlines()
        assert len(states) >= 3
        assert all("stopped" in state for state in states), states
    finally:
        signal("CONT")

    def caught_up() -> bool:
        asked = ("-n", NAMESPACE, "exec", pod, "--", "hypermesh-ledger", "state", "-o", "json")
        return '"without-the-founder"' in three.kubectl(*asked, check=False)

    eventually("it has caught up", caught_up, seconds=120, pause=1)


def test_it_does_not_shrink(three: Mesh, grown: list[str]) -> None:
    told = upgrade(three, "--set", "ledger.validators=1", check=False)
    assert "the ledger does not shrink" in told
    asked = ("-n", NAMESPACE, "get", "statefulset", "hypermesh-ledger", "-o", "jsonpath={.spec.replicas}")
    assert three.kubectl(*asked) == str(VALIDATORS)
    three.kubectl("delete", "allocations", "--all", "--timeout=150s", timeout=180)
