"""The ledger's directory: made once, checked at every start.

    config/genesis.json  config/priv_validator_key.json  config/config.toml   CometBFT's
    data/                                                                     CometBFT's blocks, WAL, signing state
    config/fetching  fetching/                                                only while a snapshot is fetched
    state/                                                                    the application's LMDB
    run/                                                                      sockets of the running processes

Both processes run with this directory as their current one, so socket paths stay short wherever it lies.
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hypermesh.v1 import ledger_pb2
from hypermesh_clients.files import write_durably
from hypermesh_ledger import fetching
from hypermesh_ledger.errors import GenesisInvalid, HomeMismatch, HomeUnusable
from hypermesh_ledger.execution.validators import holders
from hypermesh_ledger.genesis import app_state, chain_id_of, new_chain_id
from hypermesh_ledger.joining import Trust
from hypermesh_ledger.laggards import GAP_S
from hypermesh_ledger.store import look
from hypermesh_ledger.validator_key import write_validator_key

ABCI_SOCKET: Final = Path("run/abci.sock")
RPC_SOCKET: Final = Path("run/rpc.sock")
MAX_BLOCK_BYTES: Final = 4 << 20
RESTORING: Final = ".restoring"
"""In a directory in which a restore has begun and not ended."""
IDLE_S: Final = 3.0
"""An idle ledger's time between blocks: a third of what readiness checks and mirrors take for a halt."""
EVIDENCE_BLOCKS: Final = 500
EVIDENCE_S: Final = 60
"""CometBFT keeps header and commit of a block that is younger than both, for ever when it is pruned before. So blocks
are retained for longer than this (see abci/commit). One validator's misbehaviour has nobody to be shown to."""

CONFIG: Final = f"""\
# Written by hypermesh-ledger; changes are lost at its next start.
proxy_app = "unix://{ABCI_SOCKET}"
moniker = "hypermesh"
log_level = "error"
log_format = "json"
abci = "socket"

[rpc]
laddr = "unix://{RPC_SOCKET}"
max_request_batch_size = 1000

[p2p]
laddr = "tcp://[::1]:0"
pex = false
addr_book_strict = false
send_rate = 100000000
recv_rate = 100000000
max_packet_msg_payload_size = 32768
flush_throttle_timeout = "2ms"

[mempool]
type = "app"  # "nop" has no state sync
broadcast = false
max_tx_bytes = 1048576

[storage]
discard_abci_responses = true

[consensus]
# The application waits up to IDLE_S in PrepareProposal: an empty block is one that waits for its first operation.
create_empty_blocks = true
timeout_commit = "0s"
timeout_propose = "5s"
timeout_propose_delta = "200ms"
timeout_prevote = "200ms"
timeout_precommit = "200ms"
peer_gossip_sleep_duration = "10ms"

[tx_index]
indexer = "null"

[instrumentation]
prometheus = false
"""


@dataclass(frozen=True, slots=True)
class Network:
    """A ledger with peers: where CometBFT listens, whom it dials, and the chain to join unless one is there already."""

    listen: str
    persistent_peers: str
    document: dict[str, Any] | None
    trust: Trust | None = None
    """While the state comes from a peer's snapshot: what CometBFT's light client begins with."""
    several: bool = True
    """False: alone for now, but others may join."""


def configuration(network: Network | None) -> str:
    """config.toml; without a network CometBFT listens for nobody."""
    if network is None:
        return CONFIG
    lines = (
        f'laddr = "tcp://{network.listen}"',
        f'persistent_peers = "{network.persistent_peers}"',
    )
    with_peers = CONFIG.replace('laddr = "tcp://[::1]:0"', "\n".join(lines))
    if not network.several:
        gap = f'create_empty_blocks_interval = "{GAP_S * 1000:.0f}ms"  # see laggards'
        return with_peers.replace("create_empty_blocks = true", f"create_empty_blocks = true\n{gap}")
    with_peers = with_peers.replace("[rpc]\n", "[rpc]\nunsafe = true  # dial_peers, see peering\n")
    with_peers = with_peers.replace('timeout_propose = "5s"', 'timeout_propose = "2s"')  # for a proposer that is dead
    with_peers = with_peers.replace('sleep_duration = "10ms"', 'sleep_duration = "5ms"')  # waited for thrice a block
    return with_peers if network.trust is None else _with_state_sync(with_peers, network.trust)


def _with_state_sync(config: str, trust: Trust) -> str:
    """discovery_time: CometBFT's least. trust_period: the peers have just now vouched for the header."""
    key = f'priv_validator_key_file = "{fetching.KEY}"\npriv_validator_state_file = "{fetching.SIGNED}"\n'
    servers = ",".join(f"unix://{socket}" for socket in fetching.LIGHT_SOCKETS)
    sync = f"""
[statesync]
enable = true
rpc_servers = "{servers}"
trust_height = {trust.height}
trust_hash = "{trust.hash}"
trust_period = "168h0m0s"
discovery_time = "5s"
temp_dir = "{fetching.CHUNKS}"
chunk_request_timeout = "10s"
chunk_fetchers = "4"
max_snapshot_chunks = 4096
"""
    return config.replace("log_level", key + "log_level", 1) + sync


def prepare(home: Path, chain_id: str | None, genesis: ledger_pb2.Genesis, network: Network | None = None) -> str:
    """Make what is missing in the directory, and refuse it when it is another chain's; the chain's id.

    chain_id: None for whichever chain of the federation is there, or a new one. Once all is there nothing is written,
    so a full volume does not matter here. Raises HomeMismatch, HomeUnusable.
    """
    try:
        return _prepare(home, chain_id, genesis, network)
    except OSError as error:
        raise HomeUnusable(
            f"Can't prepare {home}: {error}. Give --home a directory on a writable volume with free space."
        ) from error
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise HomeMismatch(
            f"The files in {home}/config are damaged ({error!r}). Restore a backup, or use an empty directory."
        ) from error


def _prepare(home: Path, chain_id: str | None, genesis: ledger_pb2.Genesis, network: Network | None) -> str:
    if (home / RESTORING).exists():
        raise HomeMismatch(f"A restore into {home} did not end. Run `hypermesh-ledger restore` again.")
    for name in ("config", "data", "state", "run"):
        (home / name).mkdir(parents=True, exist_ok=True)
    for socket in (ABCI_SOCKET, RPC_SOCKET, *fetching.LIGHT_SOCKETS):
        (home / socket).unlink(missing_ok=True)  # of processes that were killed
    key, signed = home / "config" / "priv_validator_key.json", home / "data" / "priv_validator_state.json"
    path, config = home / "config" / "genesis.json", home / "config" / "config.toml"
    if fetching.interrupted(home) and (network is None or network.trust is None):
        raise HomeMismatch(
            f"{home} is in the middle of fetching its state from peers, and has none without them: "
            "start it with the same --p2p-address and --peers as before."
        )
    if not key.exists():
        if path.exists():
            raise HomeMismatch(
                f"{key} is missing, and {path} names it as the chain's validator: no other key can make blocks. "
                "Restore it from a backup, or start with an empty directory and a new chain."
            )
        new_validator(home)
    if not signed.exists():
        raise HomeMismatch(
            f"{signed} is missing: without it this validator could sign two blocks of one height. "
            "Restore it, or start with an empty directory and a new key."
        )
    validator = json.loads(key.read_text())
    if not path.exists():
        if network is not None and network.document is not None:
            document = network.document
            _check_same(home, document, chain_id, genesis)
        else:
            document = _document(chain_id or new_chain_id(genesis.root_public_key), genesis, validator)
        write_durably(path, json.dumps(document).encode(), 0o644)
    else:
        document = json.loads(path.read_text())
        _check_same(home, document, chain_id, genesis)
        alone = network is None or not network.several
        if alone and document["validators"][0]["pub_key"] != validator["pub_key"]:
            raise HomeMismatch(
                f"{key} is not the key of the validator in {path}, so it can make no blocks of this chain. "
                "Restore the key that belongs there, or start with an empty directory and a new chain; "
                "a validator that joined later needs --peers."
            )
    text = configuration(network)
    if not config.exists() or config.read_text() != text:
        write_durably(config, text.encode(), 0o644)
    return str(document["chain_id"])


def new_validator(home: Path) -> None:
    """A consensus key that has signed nothing. Raises FileExistsError, OSError."""
    write_durably(home / "data" / "priv_validator_state.json", b'{"height": "0", "round": 0, "step": 0}', 0o644)
    write_validator_key(home / "config" / "priv_validator_key.json")


def alone(home: Path) -> bool:
    """Whether the state here knows nobody but this validator who signs blocks. Raises StoreUnusable."""
    try:
        own = json.loads((home / "config" / "priv_validator_key.json").read_text())["pub_key"]["value"]
        first = json.loads((home / "config" / "genesis.json").read_text())["validators"][0]["pub_key"]["value"]
    except (OSError, ValueError, KeyError, IndexError, TypeError, RecursionError):
        return False  # `prepare` tells what is wrong with them
    with look(home / "state") as begin:
        state = begin()
        try:
            seated = [base64.b64encode(each.consensus_key).decode() for each in holders(state)]
        finally:
            state.close()
    return own in (seated or [first]) and len(seated) < 2


def _check_same(home: Path, document: dict[str, Any], chain_id: str | None, genesis: ledger_pb2.Genesis) -> None:
    held, federation = document["chain_id"], chain_id_of(genesis.root_public_key)
    if held != chain_id if chain_id is not None else not held.startswith(federation):
        raise HomeMismatch(
            f"{home} holds chain {held}, but the federation's is {chain_id or federation}. "
            "Use another directory, or restore the TrustChain root that this chain began with."
        )
    if document["app_state"] != app_state(genesis):
        raise HomeMismatch(
            f"{home} began with another root key or other proof parameters than are given now. "
            "They are fixed at genesis: give the same ones, or use an empty directory for a new chain."
        )


def _document(chain_id: str, genesis: ledger_pb2.Genesis, validator: dict[str, Any]) -> dict[str, Any]:
    if not 0 < len(chain_id) <= 50:
        raise GenesisInvalid(f"The chain id {chain_id!r} is not 1 to 50 characters long.")
    return {
        "genesis_time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "chain_id": chain_id,
        "initial_height": "1",
        "consensus_params": {
            "block": {"max_bytes": str(MAX_BLOCK_BYTES), "max_gas": "-1"},
            "evidence": {
                "max_age_num_blocks": str(EVIDENCE_BLOCKS),
                "max_age_duration": str(EVIDENCE_S * 1_000_000_000),
                "max_bytes": "65536",
            },
            "validator": {"pub_key_types": ["ml_dsa_65"]},
            "version": {"app": "1"},
            "abci": {"vote_extensions_enable_height": "0"},
        },
        "validators": [{"address": validator["address"], "pub_key": validator["pub_key"], "power": "10", "name": "0"}],
        "app_hash": "",
        "app_state": app_state(genesis),
    }
