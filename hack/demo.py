"""The main job from nothing: cluster, image, chart, an Allocation, and bytes through its proxy address.

Data flow: each step is one real command (the same a user would type); its output goes to build/demo/<step>.log and the
last lines are shown when it fails. `--cluster embedded` makes a cluster on this machine (root), `current` installs into
the current kubeconfig context after naming it, `kind` makes a kind cluster where Docker or podman exists.
Files: hack/demo.py (the story), hack/demo_steps.py (running and showing commands), hack/demo_targets.py (clusters).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from demo_steps import Failed, Story
from demo_targets import NAMESPACE, OFFSET, Target, make_target

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "samples" / "allocation-memory.yaml"
CONDITIONS = ("Proven", "Reserved", "Programmed", "Ready")
FINAL = ("LeaseExpired", "NoAssetFits", "Released")
"""Reasons of Ready=False that no waiting mends."""


def install(story: Story, target: Target) -> None:
    """Image into the nodes, chart into the cluster, and wait until every part says it is healthy.

    Of what was set before only the number of validators stays: a ledger does not shrink.
    """
    target.provide_image(story)
    story.run(
        "install the chart",
        [
            "helm", "upgrade", "--install", "hypermesh", str(ROOT / "charts" / "hypermesh"),
            "--namespace", NAMESPACE, "--create-namespace", *_validators(story, target), *target.helm_values(),
        ],
        env=target.env,
    )  # fmt: skip
    story.run(
        "wait until every part is healthy",
        ["kubectl-hypermesh", "check", "--wait", "180s", "--namespace", NAMESPACE],
        env=target.env,
        show=True,
    )
    target.open_route(story)


def _validators(story: Story, target: Target) -> list[str]:
    """The number there is, when the ledger has grown."""
    asked = ["get", "statefulset", "hypermesh-ledger", "--ignore-not-found", "-o", "jsonpath={.spec.replicas}"]
    number = story.output(["kubectl", "-n", NAMESPACE, *asked], env=target.env).strip()
    return ["--set", f"ledger.validators={number}"] if number not in ("", "0", "1") else []


def watch_allocation(story: Story, target: Target, name: str) -> str:
    """Apply the sample and show each condition as it turns true; returns the proxy address."""
    story.output(["kubectl", "delete", "-f", str(SAMPLE), "--ignore-not-found", "--timeout=60s"], env=target.env)
    started = time.monotonic()
    story.run("apply samples/allocation-memory.yaml", ["kubectl", "apply", "-f", str(SAMPLE)], env=target.env)
    seen: set[str] = set()
    while time.monotonic() - started < 120:
        text = story.output(["kubectl", "get", "allocation", name, "-o", "json"], env=target.env)
        status = json.loads(text).get("status", {})
        truth = {item["type"]: item for item in status.get("conditions", [])}
        for kind in CONDITIONS:
            if truth.get(kind, {}).get("status") == "True" and kind not in seen:
                seen.add(kind)
                story.say(f"  {kind:<11}{time.monotonic() - started:6.2f} s  {truth[kind].get('message', '')}")
        ready = truth.get("Ready", {})
        if ready.get("reason") in FINAL:
            raise Failed(f"allocation {name}: {ready['reason']}: {ready.get('message', '')}")
        if "Ready" in seen:
            return str(status["proxyAddress"])
        time.sleep(0.05)
    raise Failed(f"allocation {name} is not Ready after 120 s; see: kubectl describe allocation {name}")


def use(story: Story, target: Target, name: str, address: str) -> None:
    """Write bytes through the address, read them back, compare."""
    message = f"hello from {os.uname().nodename}, {time.strftime('%Y-%m-%d %H:%M:%S %Z')}"
    back = target.write_and_read(story, name, message, f"write {len(message)} bytes at [{address}] offset {OFFSET}")
    if back != message:
        raise Failed(f"read back {back!r}, wrote {message!r}")
    story.say(f"  read back: {back}")


def run(target: Target, story: Story) -> None:
    target.up(story)
    install(story, target)
    story.say("\nThis cluster's hardware (kubectl get assets):")
    story.say(story.output(["kubectl", "get", "assets"], env=target.env))
    name = "memory"
    address = watch_allocation(story, target, name)
    use(story, target, name, address)
    story.say("\nProxy addresses (kubectl hypermesh proxy list):")
    story.say(story.output(["kubectl-hypermesh", "proxy", "list"], env=target.env))
    story.say(f"\nDemo finished in {story.elapsed():.0f} s. {target.goodbye()}")


def main() -> int:
    parser = argparse.ArgumentParser(description="HyperMesh demo: from nothing to bytes through a proxy address")
    parser.add_argument("--cluster", choices=["embedded", "current", "kind"], default="embedded")
    parser.add_argument("--nodes", type=int, default=1, help="nodes of the embedded cluster (1-3)")
    parser.add_argument("--clean", action="store_true", help="remove what the demo made")
    arguments = parser.parse_args()
    story = Story(ROOT / "build" / "demo")
    target = make_target(arguments.cluster, arguments.nodes, ROOT)
    try:
        if arguments.clean:
            target.clean(story)
        else:
            run(target, story)
    except Failed as failure:
        story.say(f"\nThe demo stopped: {failure}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
