"""Query: one value of the state by its key, with a proof when asked, for tools that speak to CometBFT's RPC.

Path `/store/ledger/key`. With a proof the default height is the last but one, because only the next block's header
holds a state's app hash. The stock light client knows no proof of absence, so a bucket's listing can be asked for
instead: key `\\0B` and the first two bytes of the SHA-256 of the key that is not there.
"""

from __future__ import annotations

from typing import Final

from hypermesh_ledger import commitment, merkle
from hypermesh_ledger.core import Core
from hypermesh_ledger.errors import HeightNotKept, TooManyLookBack
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci

PATH: Final = "/store/ledger/key"
ABSENT: Final = 2
LONGEST: Final = 127
"""Bytes of a key; the database refuses longer ones, and no state has one."""


async def query(core: Core, request: abci.RequestQuery) -> abci.ResponseQuery:
    """Code 1 for what can't be answered, 2 for a proof of what is not there, with the reason in the log."""
    if request.path != PATH or not 0 < len(request.data) <= LONGEST:
        return _refused(f"ask for path {PATH} and a key of 1 to {LONGEST} bytes as data, not for {request.path!r}")
    try:
        if request.prove:
            return await _proven(core, request.data, request.height)
        if request.height:
            value = await core.past.value(request.data, request.height)
            return abci.ResponseQuery(key=request.data, value=value or b"", height=request.height)
    except (HeightNotKept, TooManyLookBack) as error:
        return _refused(str(error))
    value = core.store.snapshot.get(request.data)
    return abci.ResponseQuery(key=request.data, value=value or b"", height=core.store.head.height)


async def _proven(core: Core, key: bytes, height: int) -> abci.ResponseQuery:
    height, proof = await core.past.prove(key, height)
    listed = commitment.listed_bucket(key) is not None
    if proof.listing and not listed:
        bucket = (commitment.LISTING + commitment.bucket_of(key)).hex()
        log = f"no such key at height {height}; key {bucket} lists all that could be beside it"
        return abci.ResponseQuery(code=ABSENT, codespace="hypermesh", key=key, height=height, log=log)
    value = proof.value or proof.listing
    return abci.ResponseQuery(key=key, value=value, height=height, proof_ops=merkle.proof_ops(proof))


def _refused(log: str) -> abci.ResponseQuery:
    return abci.ResponseQuery(code=1, codespace="hypermesh", log=log)
