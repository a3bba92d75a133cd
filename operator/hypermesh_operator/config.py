"""Settings of the process: command line, then environment, then defaults; every flag is in --help."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Config:
    """namespace is the install namespace; identity names this replica in the Lease."""

    namespace: str
    identity: str
    ledger: str
    trustchain: str
    token_file: Path
    metrics_port: int
    release_timeout_s: float
    sweep_every_s: float
    workers: int
    kubeconfig: Path | None
    log_level: str


def parse(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> Config:
    """Reads them. Ends the process with a usage message when they make no sense."""
    namespace = environment.get("POD_NAMESPACE", "hypermesh-system")
    service = f"{namespace}.svc"
    parser = argparse.ArgumentParser(
        prog="hypermesh-operator",
        description="Reconciles Allocations: policy, four proofs, ledger, mapping, Ready.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )

    def option(flag: str, variable: str, default: str, text: str, kind: type = str) -> None:
        value = environment.get(variable, default)
        parser.add_argument(flag, default=value, type=kind, help=f"{text} (environment: {variable})")

    option("--namespace", "POD_NAMESPACE", "hypermesh-system", "install namespace")
    option("--identity", "POD_NAME", f"local-{os.getpid()}", "name of this replica")
    option("--ledger", "HYPERMESH_LEDGER", f"hypermesh-ledger.{service}:7450", "ledger, host:port")
    option("--trustchain", "HYPERMESH_TRUSTCHAIN", f"hypermesh-trustchain.{service}:7440", "TrustChain, host:port")
    option("--token-file", "HYPERMESH_TOKEN_FILE", "/var/run/secrets/hypermesh/token", "enrolment token", Path)
    option("--metrics-port", "HYPERMESH_METRICS_PORT", "7470", "port of metrics and probes, 0 for any", int)
    option("--release-timeout", "HYPERMESH_RELEASE_TIMEOUT", "120", "seconds that a deletion waits", float)
    option("--sweep-every", "HYPERMESH_SWEEP_EVERY", "30", "seconds between two orphan sweeps", float)
    option("--workers", "HYPERMESH_WORKERS", "48", "Allocations worked on side by side", int)
    option("--log-level", "LOG_LEVEL", "INFO", "DEBUG, INFO, WARNING or ERROR")
    parser.add_argument("--kubeconfig", type=Path, default=None, help="outside of a pod: path of a kubeconfig")
    found = parser.parse_args(arguments)
    return Config(
        namespace=found.namespace,
        identity=found.identity,
        ledger=found.ledger,
        trustchain=found.trustchain,
        token_file=found.token_file,
        metrics_port=found.metrics_port,
        release_timeout_s=found.release_timeout,
        sweep_every_s=found.sweep_every,
        workers=found.workers,
        kubeconfig=found.kubeconfig,
        log_level=found.log_level,
    )
