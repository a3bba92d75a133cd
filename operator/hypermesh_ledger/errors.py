"""What a person must mend before the ledger can run. The message names the object, the fault and the remedy."""


class Unrunnable(Exception):
    """A configuration that no restart will mend."""


class GenesisInvalid(Unrunnable):
    """A genesis that no chain can begin with."""


class HomeMismatch(Unrunnable):
    """The directory belongs to another chain, or is damaged."""


class IngressUnusable(Unrunnable):
    """The gRPC service can't listen."""


class TrustUnusable(Unrunnable):
    """The federation's root or our certificate is refused."""


class Interrupted(Exception):
    """What keeps the ledger from running for now; when it is mended a restart helps, and it is tried for ever."""


class HomeUnusable(Interrupted):
    """The directory can't be read or written, as on a full disk."""


class StoreUnusable(Interrupted):
    """The state can't be read or written, as on a full disk."""


class TrustUnavailable(Interrupted):
    """TrustChain, the API server or our token can't be had now."""


class Restored(Interrupted):
    """A snapshot has become the state: both processes start again, as what they are."""


class HeightNotKept(Exception):
    """A state that the ledger has forgotten, or not reached."""


class TooManyLookBack(Exception):
    """Others have been looking at older states for too long; ask again later."""


class CometbftSilent(Exception):
    """CometBFT does not answer for a block that it must have; ask again."""


class Undecided(Exception):
    """Nobody knows yet what becomes of an operation: no block took it in time; submit the same bytes again."""
