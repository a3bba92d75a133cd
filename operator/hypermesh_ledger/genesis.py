"""The genesis: what the chain begins with, as CometBFT's genesis file carries it and as the first state holds it.

Genesis message -> app_state JSON {"genesis": base64} -> InitChain -> initial_state -> state at height 1
"""

from __future__ import annotations

import base64
import json
import secrets

from hypermesh import addressing
from hypermesh.falcon import PUBLIC_KEY_BYTES
from hypermesh.operations import canonical
from hypermesh.proofs.parameters import ParametersInvalid, validate
from hypermesh.v1 import ledger_pb2, proofs_pb2, trust_pb2
from hypermesh_ledger import keys
from hypermesh_ledger.errors import GenesisInvalid

INITIAL_TRUST_SCORE = 5_000
TRUST_RULES = 1
"""Of new chains; see execution/scores. A chain begun before has 0, and constant scores."""


def make_genesis(root_public_key: bytes, parameters: proofs_pb2.ProofParameters) -> ledger_pb2.Genesis:
    """Raises GenesisInvalid for a root key or parameters that can't work."""
    if len(root_public_key) != PUBLIC_KEY_BYTES:
        raise GenesisInvalid(
            f"The root public key has {len(root_public_key)} bytes instead of {PUBLIC_KEY_BYTES}: "
            "give TrustChain's root.pub."
        )
    try:
        validate(parameters)
    except ParametersInvalid as error:
        raise GenesisInvalid(str(error)) from error
    return ledger_pb2.Genesis(
        root_public_key=root_public_key,
        root_algorithm=trust_pb2.SIGNATURE_ALGORITHM_FALCON_PADDED_1024,
        proofs=parameters,
        initial_trust_score=INITIAL_TRUST_SCORE,
        trust_rules=TRUST_RULES,
    )


def chain_id_of(root_public_key: bytes) -> str:
    """What the ids of a federation's chains begin with: "hypermesh-" and the federation's 10 hex digits."""
    return f"hypermesh-{addressing.federation_id(root_public_key).hex()}"


def new_chain_id(root_public_key: bytes) -> str:
    """Of a chain that begins now, like no other's: what was signed for a lost chain is worth nothing on the next."""
    return f"{chain_id_of(root_public_key)}-{secrets.token_hex(4)}"


def app_state(genesis: ledger_pb2.Genesis) -> dict[str, str]:
    """The app_state object of CometBFT's genesis file."""
    return {"genesis": base64.b64encode(canonical(genesis)).decode()}


def genesis_of(encoded: str) -> ledger_pb2.Genesis:
    """What `app_state` encoded. Raises GenesisInvalid."""
    try:
        return ledger_pb2.Genesis.FromString(base64.b64decode(encoded, validate=True))
    except Exception as error:
        raise _foreign() from error


def _foreign() -> GenesisInvalid:
    return GenesisInvalid("The genesis file's app_state holds no genesis of ours: make it with hypermesh-ledger.")


def initial_state(chain_id: str, app_state_bytes: bytes) -> dict[bytes, bytes]:
    """The first state's entries. Raises GenesisInvalid."""
    try:
        encoded = json.loads(app_state_bytes)["genesis"]
    except (ValueError, KeyError, TypeError) as error:
        raise _foreign() from error
    genesis = genesis_of(encoded)
    checked = make_genesis(genesis.root_public_key, genesis.proofs)
    checked.initial_trust_score = genesis.initial_trust_score
    checked.trust_rules = genesis.trust_rules
    return {keys.GENESIS: canonical(checked), keys.CHAIN_ID: chain_id.encode()}
