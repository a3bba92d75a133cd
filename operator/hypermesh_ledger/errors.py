"""What a person must mend before the ledger can run. The message names the object, the fault and the remedy."""


class Unrunnable(Exception):
    """A configuration that no restart will mend."""


class GenesisInvalid(Unrunnable):
    """A genesis that no chain can begin with."""


class HomeMismatch(Unrunnable):
    """The directory belongs to another chain, is damaged, or can't be written."""


class IngressUnusable(Unrunnable):
    """The gRPC service can't listen."""


class TrustUnusable(Unrunnable):
    """The federation's root or our certificate can't be had."""


class StoreUnusable(Exception):
    """The state can't be read or written, as on a full disk; when that is mended a restart helps."""
