"""`kubectl hypermesh ledger status`: is the chain moving, who signs it, what waits, and is this process ready."""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from typing import Any

from hypermesh.v1 import ledger_pb2
from kubectl_hypermesh.ledger.reach import reached
from kubectl_hypermesh.options import Options
from kubectl_hypermesh.output import condition, is_structured, painted, pairs, short_time, structured

OLD_S = 10
"""A chain whose newest block is older is shown as standing; an idle one makes a block every 3 s."""


def add_parser(parts: Any, parents: list[argparse.ArgumentParser]) -> None:
    parser = parts.add_parser("status", parents=parents, help="chain, height, epoch, validators, pool and readiness")
    parser.set_defaults(run=run)


def summarize(
    found: ledger_pb2.InspectResponse, pod: str | None, pods: list[dict[str, Any]], now_ms: int
) -> dict[str, Any]:
    """What a program reads; heights and counts are numbers, ages in seconds."""
    status = found.status
    epoch_s = status.genesis.proofs.epoch_ms / 1000
    ready = [item for item in pods if condition(item, "Ready")["status"] == "True"]
    return {
        "chainID": status.chain_id,
        "height": status.height,
        "blockTime": _rfc3339(status.block_time_ms),
        "blockAgeSeconds": max(0, now_ms - status.block_time_ms) // 1000,
        "appHash": status.app_hash.hex(),
        "epoch": {
            "number": status.epoch.number,
            "ageSeconds": max(0, now_ms - status.epoch.started_ms) // 1000,
            "lengthSeconds": epoch_s,
        },
        "round": found.round,
        "consensus": {
            "height": found.consensus_height,
            "round": found.consensus_round,
            "step": found.consensus_step,
            "peers": found.peers,
        },
        "validators": {
            "present": sum(each.signed_last for each in found.standings),
            "total": len(found.standings),
        },
        "mempool": {
            "transactions": status.mempool,
            "bytes": found.pool_bytes,
            "classes": {getattr(each, "class"): each.transactions for each in found.pool},
        },
        "history": {"from": found.earliest_height, "to": status.height},
        "snapshots": list(found.snapshots),
        "ready": not found.not_ready,
        "notReady": list(found.not_ready),
        "version": found.version,
        "pod": pod,
        "pods": {"ready": len(ready), "total": len(pods)},
    }


def render(summary: dict[str, Any]) -> str:
    """Aligned lines: a fact each, the most urgent first where something is wrong."""
    epoch, mempool, validators = summary["epoch"], summary["mempool"], summary["validators"]
    present, total, age = validators["present"], validators["total"], summary["blockAgeSeconds"]
    waiting = ", ".join(f"{count} {name}" for name, count in mempool["classes"].items() if count)
    lines = [
        ("Chain", summary["chainID"]),
        ("Height", str(summary["height"])),
        ("Newest block", painted(f"{short_time(age)} ago", "red" if age > OLD_S else "green")),
        ("Epoch", f"{epoch['number']}, begun {short_time(epoch['ageSeconds'])} ago, {epoch['lengthSeconds']:g} s long"),
        ("Validators", painted(f"{present} of {total} signed", "green" if present == total else "yellow")),
        ("Waiting", f"{mempool['transactions']} operations" + (f" ({waiting})" if waiting else "")),
        ("History", f"blocks {summary['history']['from']} to {summary['history']['to']} can be proven"),
    ]
    if summary["snapshots"]:
        lines.append(("Snapshots", ", ".join(map(str, summary["snapshots"]))))
    consensus = summary["consensus"]
    if not consensus["height"]:
        lines.append(("Consensus", painted("CometBFT does not answer", "red")))
    elif consensus["round"] or age > OLD_S:
        text = f"block {consensus['height']} in round {consensus['round']}, {consensus['peers']} peers connected"
        lines.append(("Consensus", painted(text, "yellow")))
    if summary["round"]:
        lines.append(("Rounds", painted(f"the last block took {summary['round'] + 1} rounds", "yellow")))
    if summary["pod"]:
        pods = summary["pods"]
        lines.append(("Pods", f"{pods['ready']} of {pods['total']} ready, answered by {summary['pod']}"))
    lines.append(("Version", summary["version"]))
    if summary["ready"]:
        lines.append(("Ready", painted("yes", "green")))
    else:
        lines += [("Ready", painted(f"no: {reason}", "red")) for reason in summary["notReady"]]
    return pairs(lines)


def _rfc3339(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def run(options: Options, arguments: argparse.Namespace) -> int:
    async with reached(options, arguments) as there:
        found = await there.client.inspect()
        summary = summarize(found, there.pod, there.pods, time.time_ns() // 1_000_000)
    print(structured(summary, options.output) if is_structured(options.output) else render(summary))
    return 0
