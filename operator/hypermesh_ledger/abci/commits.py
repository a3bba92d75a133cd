"""What CometBFT says about the commit of the block before, as execution reads it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from hypermesh_ledger.execution import Vote
from hypermesh_ledger.pb.tendermint.abci import types_pb2 as abci
from hypermesh_ledger.pb.tendermint.types import validator_pb2

_ABSENT: Final = validator_pb2.BLOCK_ID_FLAG_ABSENT
_COMMIT: Final = validator_pb2.BLOCK_ID_FLAG_COMMIT


class _Voted(Protocol):
    @property
    def validator(self) -> abci.Validator: ...

    @property
    def block_id_flag(self) -> validator_pb2.BlockIDFlag: ...


def votes_of(voted: Iterable[_Voted]) -> list[Vote]:
    """Of everybody in the set, in its order."""
    return [
        Vote(each.validator.address, each.block_id_flag != _ABSENT, each.block_id_flag == _COMMIT) for each in voted
    ]
