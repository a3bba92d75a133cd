"""Flags of hypermesh-ledger; each falls back to what the chart sets in the environment."""

from __future__ import annotations

import argparse
import os
import re
import shutil
from pathlib import Path
from typing import Final

from google.protobuf import json_format

from hypermesh.proofs import parameters
from hypermesh.v1 import proofs_pb2
from hypermesh_ledger.errors import GenesisInvalid

PORT: Final = 7450
SNAPSHOT_INTERVAL: Final = 1_000
"""Of a ledger with peers, blocks: it keeps those since the older of two snapshots."""
METRICS_PORT: Final = 7470
NAMED_PARAMETERS: Final = {
    "demo": parameters.DEMO,
    "demo-memory": parameters.with_memory(parameters.DEMO, parameters.MEMORY_DEMO),
    "production": parameters.PRODUCTION,
    "production-memory": parameters.with_memory(parameters.PRODUCTION, parameters.MEMORY_PRODUCTION),
}
TOKEN_FILE: Final = "/var/run/secrets/hypermesh/token"  # noqa: S105 - a path

_P2P_ADDRESS: Final = re.compile(r"\[[0-9a-f:]+\]:[1-9][0-9]{0,4}")


def add_application_options(parser: argparse.ArgumentParser) -> None:
    """What the application process needs; the supervisor hands these through."""
    environment = os.environ.get
    parser.add_argument("--host", default="::", help="IPv6 address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="port of the gRPC service (default %(default)s)")
    parser.add_argument(
        "--metrics-port",
        type=int,
        default=int(environment("HYPERMESH_METRICS_PORT", str(METRICS_PORT))),
        help="port of /metrics, /healthz and /readyz (HYPERMESH_METRICS_PORT; default %(default)s)",
    )
    parser.add_argument("--chain-id", help="default: what is there, else hypermesh-<federation>-<new>")
    parser.add_argument(
        "--proof-parameters",
        default=environment("HYPERMESH_PROOF_PARAMETERS", "demo"),
        help="demo, production, either with -memory, or a JSON file of ProofParameters; fixed at the first start "
        "(HYPERMESH_PROOF_PARAMETERS; default %(default)s)",
    )
    parser.add_argument(
        "--snapshot-interval",
        type=int,
        default=_number(environment("HYPERMESH_SNAPSHOT_INTERVAL")),
        help="keep a snapshot for joining ledgers every so many blocks, 0 for never (HYPERMESH_SNAPSHOT_INTERVAL; "
        f"default: {SNAPSHOT_INTERVAL} with --p2p-address, else never)",
    )
    peers = parser.add_argument_group("one of several ledgers (without --p2p-address: alone)")
    peers.add_argument(
        "--p2p-address",
        default=environment("HYPERMESH_P2P_ADDRESS"),
        help="[ipv6]:port for CometBFT to listen on (HYPERMESH_P2P_ADDRESS)",
    )
    peers.add_argument(
        "--peers",
        default=environment("HYPERMESH_PEERS", ""),
        help="host:port of every ledger's service, comma-separated, the same list for all; the first one begins the "
        "chain (HYPERMESH_PEERS)",
    )
    peers.add_argument(
        "--name",
        default=environment("POD_NAME", ""),
        help="which of --peers this one is: its host:port, or the first label of its host (POD_NAME)",
    )
    peers.add_argument("--peers-tls-name", help="name in the peers' TLS certificates, when it isn't their host")
    files = parser.add_argument_group("without Kubernetes")
    files.add_argument("--root-public-key", type=_absolute, help="file with TrustChain's Falcon root public key")
    files.add_argument("--tls-cert", type=_absolute, help="PEM chain of the gRPC service")
    files.add_argument("--tls-key", type=_absolute, help="its PEM key")
    files.add_argument("--tls-ca", type=_absolute, help="PEM of who issued the peers' TLS certificates; default: ours")
    files.add_argument("--falcon-key", type=_absolute, help="the ledger's own key, with which it joins the validators")
    files.add_argument("--falcon-certificate", type=_absolute, help="that key's certificate from TrustChain")
    cluster = parser.add_argument_group("in Kubernetes (when no --root-public-key is given)")
    cluster.add_argument("--namespace", default=environment("POD_NAMESPACE", "hypermesh-system"))
    cluster.add_argument(
        "--trustchain",
        default=environment("HYPERMESH_TRUSTCHAIN", "hypermesh-trustchain.hypermesh-system.svc:7440"),
        help="host:port of TrustChain (HYPERMESH_TRUSTCHAIN)",
    )
    cluster.add_argument(
        "--token-file",
        type=_absolute,
        default=environment("HYPERMESH_TOKEN_FILE", TOKEN_FILE),
        help="projected service account token (HYPERMESH_TOKEN_FILE)",
    )


def check_application_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Ends with a usage error when the flags contradict each other."""
    files = (options.root_public_key, options.tls_cert, options.tls_key)
    if any(files) and not all(files):
        parser.error("--root-public-key, --tls-cert and --tls-key belong together: give all three or none")
    if options.p2p_address and not _P2P_ADDRESS.fullmatch(options.p2p_address):
        parser.error(f"--p2p-address {options.p2p_address}: give an IPv6 address and a port, such as [::]:26656")
    if bool(options.falcon_key) != bool(options.falcon_certificate):
        parser.error("--falcon-key and --falcon-certificate belong together: give both or none")


def proof_parameters(text: str) -> proofs_pb2.ProofParameters:
    """The parameters that --proof-parameters names. Raises GenesisInvalid."""
    if text in NAMED_PARAMETERS:
        return NAMED_PARAMETERS[text]
    try:
        return json_format.Parse(Path(text).read_text(), proofs_pb2.ProofParameters())
    except (OSError, json_format.ParseError) as error:
        raise GenesisInvalid(
            f"--proof-parameters {text}: {error}. Give demo, production, or a JSON file of ProofParameters."
        ) from error


def find_cometbft(given: str | None) -> str | None:
    """The path of the CometBFT program: as given, in build/bin of the checkout, or on the PATH; None when nowhere."""
    built = Path(__file__).resolve().parents[2] / "build" / "bin" / "cometbft"
    for candidate in (given,) if given else (str(built), "cometbft"):
        if found := shutil.which(candidate):
            return str(Path(found).resolve())
    return None


def loopback(text: str) -> str:
    """`[::1]:PORT`: the RPC has no TLS and asks nobody who they are. Raises ArgumentTypeError."""
    host, _, port = text.rpartition(":")
    if host != "[::1]" or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r} is not [::1]:PORT; the RPC is only for this machine")
    return text


def _number(text: str | None) -> int | None:
    return int(text) if text else None


def _absolute(text: str) -> Path:
    """Both processes run in the ledger's directory, so relative paths must be settled before."""
    return Path(text).resolve()
