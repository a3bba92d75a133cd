"""Configuration: a flag for everything, its default from the environment that the chart sets.

Reserves say what the owner keeps: a Kubernetes quantity (`2Gi`, `500m`) or a share (`10%`).
"""

from __future__ import annotations

import argparse
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, Final

from hypermesh import quantities
from hypermesh.resources import PRIVACY_LEVELS

from .reserves import Reserve
from .survey import SurveyConfig

_PERCENT: Final = re.compile(r"(\d{1,3})%")


class ConfigError(ValueError):
    """A setting that cannot be used; the message names flag, variable and remedy."""


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Everything `hypermesh-agent run` is told."""

    namespace: str
    node_name: str
    node_ip: str
    ledger: str
    trustchain: str
    token_file: Path
    state: Path
    metrics_port: int
    privacy_level: str
    plot_k: int
    survey_seconds: float
    memory_proof: Reserve
    validators: str
    survey: SurveyConfig


def parse_reserve(resource: str, text: str) -> Reserve:
    """`resource` as quantities.parse knows it. Raises ConfigError."""
    if match := _PERCENT.fullmatch(text.strip()):
        percent = int(match[1])
        if percent <= 100:
            return Reserve(percent=percent)
    try:
        return Reserve(amount=quantities.parse(resource, text))
    except quantities.QuantityInvalid as error:
        raise ConfigError(f"reserve of {resource} {text!r}: {error}, or a share such as 10%") from error


def add_survey_flags(parser: argparse.ArgumentParser, environment: Mapping[str, str] = os.environ) -> None:
    """Flags of every command that looks at the machine."""
    default = environment.get
    parser.add_argument(
        "--pool",
        default=default("HYPERMESH_POOL", ""),
        metavar="DIRECTORY",
        help="directory whose file system is given as storage; none given: no storage is (HYPERMESH_POOL)",
    )
    for name, variable, fallback, unit in (
        ("cpu", "HYPERMESH_RESERVED_CPU", "0", "cores, e.g. 500m"),
        ("memory", "HYPERMESH_RESERVED_MEMORY", "2Gi", "bytes"),
        ("storage", "HYPERMESH_RESERVED_STORAGE", "10Gi", "bytes"),
    ):
        parser.add_argument(
            f"--reserved-{name}",
            default=default(variable, "") or fallback,
            metavar="AMOUNT",
            help=f"{unit} or a share such as 10%% that is never given away ({variable}, default {fallback})",
        )


def add_run_flags(parser: argparse.ArgumentParser, environment: Mapping[str, str] = os.environ) -> None:
    """Flags of `run`."""
    default = environment.get
    state = default("HYPERMESH_STATE", "/var/lib/hypermesh")
    settings = (
        ("--namespace", "POD_NAMESPACE", "hypermesh-system", "namespace HyperMesh is installed in"),
        ("--node-name", "NODE_NAME", socket.gethostname(), "name of this Kubernetes node"),
        ("--node-ip", "NODE_IP", "::1", "IPv6 address under which other nodes reach this one; of several the first"),
        ("--ledger", "HYPERMESH_LEDGER", "hypermesh-ledger.hypermesh-system.svc:7450", "ledger, host:port"),
        ("--trustchain", "HYPERMESH_TRUSTCHAIN", "hypermesh-trustchain.hypermesh-system.svc:7440", "host:port"),
        ("--token-file", "HYPERMESH_TOKEN_FILE", "/var/run/secrets/hypermesh/token", "token for the enrolment"),
        ("--state", "HYPERMESH_STATE", state, "directory of keys, plots and memory regions"),
        ("--metrics-port", "HYPERMESH_METRICS_PORT", "7470", "port of metrics and probes"),
        ("--privacy-level", "HYPERMESH_PRIVACY_LEVEL", "Private", "sharing of newly found Assets"),
        ("--plot-k", "HYPERMESH_PLOT_K", "18", "size of the plot for the proof of space"),
        (
            "--memory-proof",
            "HYPERMESH_MEMORY_PROOF",
            "0",
            "memory that is filled, proven and given, where the chain asks",
        ),
        (
            "--validators",
            "HYPERMESH_VALIDATORS",
            "",
            "host:port,... of ledgers that may measure the round trip; none: no",
        ),
        ("--survey-seconds", "HYPERMESH_SURVEY_SECONDS", "30", "time between two looks at what tells no event"),
    )
    for flag, variable, fallback, text in settings:
        value = default(variable, "") or fallback
        parser.add_argument(flag, default=value, help=f"{text} ({variable}, default {fallback})")


def add_desk_parsers(commands: Any, environment: Mapping[str, str] = os.environ) -> None:
    """`delegate`, `revoke`, `share` and `release` (see delegating)."""
    common = argparse.ArgumentParser(add_help=False)
    for flag, variable, fallback in (
        ("--namespace", "POD_NAMESPACE", "hypermesh-system"),
        ("--ledger", "HYPERMESH_LEDGER", "hypermesh-ledger.hypermesh-system.svc:7450"),
        ("--trustchain", "HYPERMESH_TRUSTCHAIN", "hypermesh-trustchain.hypermesh-system.svc:7440"),
        ("--token-file", "HYPERMESH_TOKEN_FILE", "/var/run/secrets/hypermesh/token"),
        ("--state", "HYPERMESH_STATE", "/var/lib/hypermesh"),
    ):
        common.add_argument(flag, default=environment.get(variable, "") or fallback, help=f"as of `run` ({variable})")
    giving = commands.add_parser("delegate", parents=[common], help="let another key act for this node's Assets")
    giving.add_argument("to", metavar="KEY", help="key id in hex, or the certified name")
    giving.add_argument("--right", action="append", required=True, choices=["release", "sharing"], help="one or both")
    giving.add_argument("--days", type=_days, default=30.0, help="it ends by itself after so many (default 30)")
    taking = commands.add_parser("revoke", parents=[common], help="take all of a key's rights back")
    taking.add_argument("to", metavar="KEY", help="key id in hex, or the certified name")
    sharing = commands.add_parser("share", parents=[common], help="pause, open or price another node's Asset")
    sharing.add_argument("asset", metavar="ASSET", help="name or id of an Asset whose node delegated `sharing`")
    state = sharing.add_mutually_exclusive_group()
    state.add_argument("--pause", dest="paused", action="store_true", default=None)
    state.add_argument("--open", dest="paused", action="store_false")
    sharing.add_argument("--price", metavar="CAESAR", help="an hour for the whole Asset")
    ending = commands.add_parser("release", parents=[common], help="end an allocation of either side's delegation")
    ending.add_argument("allocation", metavar="ID", type=bytes.fromhex, help="allocation id in hex")


def _days(text: str) -> float:
    days = float(text)
    if not 0 < days <= 366:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0 and at most 366")
    return days


def survey_config(arguments: argparse.Namespace) -> SurveyConfig:
    """Raises ConfigError."""
    return SurveyConfig(
        reserved_cpu=parse_reserve("cores", arguments.reserved_cpu),
        reserved_memory=parse_reserve("memory", arguments.reserved_memory),
        reserved_storage=parse_reserve("storage", arguments.reserved_storage),
        pool=Path(arguments.pool) if arguments.pool else None,
    )


def agent_config(arguments: argparse.Namespace) -> AgentConfig:
    """Raises ConfigError."""
    if arguments.privacy_level not in PRIVACY_LEVELS:
        levels = ", ".join(PRIVACY_LEVELS)
        raise ConfigError(f"--privacy-level {arguments.privacy_level!r} is unknown: choose one of {levels}")
    return AgentConfig(
        namespace=arguments.namespace,
        node_name=arguments.node_name,
        node_ip=ipv6_of(arguments.node_ip),
        ledger=arguments.ledger,
        trustchain=arguments.trustchain,
        token_file=Path(arguments.token_file),
        state=Path(arguments.state),
        metrics_port=_number("--metrics-port", arguments.metrics_port, 0, 65535),
        privacy_level=arguments.privacy_level,
        plot_k=_number("--plot-k", arguments.plot_k, 18, 40),
        survey_seconds=_number("--survey-seconds", arguments.survey_seconds, 1, 3600),
        memory_proof=parse_reserve("memory", arguments.memory_proof),
        validators=arguments.validators,
        survey=survey_config(arguments),
    )


def ipv6_of(text: str) -> str:
    """The first IPv6 address of one or several, as Kubernetes' status.hostIPs gives them. Raises ConfigError."""
    for part in text.split(","):
        with suppress(ValueError):
            address = IPv6Address(part.strip())
            if address.ipv4_mapped is None and not address.is_unspecified:
                return str(address)
    raise ConfigError(
        f"--node-ip {text!r} (NODE_IP) holds no IPv6 address: HyperMesh needs nodes with an IPv6 InternalIP "
        "(kubelet --node-ip), and NODE_IP from the field status.hostIPs"
    )


def _number(flag: str, text: str, low: int, high: int) -> int:
    if text.isascii() and text.isdigit() and low <= int(text) <= high:
        return int(text)
    raise ConfigError(f"{flag} {text!r}: write a whole number from {low} to {high}")
