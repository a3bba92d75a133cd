"""Why an enrolment is refused, as one type with a reason that travels to the client."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """CamelCase, stable: clients decide by it. Each line is the remedy."""

    MALFORMED = "Malformed"
    """Send a message as protos/hypermesh/v1/trust.proto describes it."""
    UNSUPPORTED_ALGORITHM = "UnsupportedAlgorithm"
    """Use a FALCON-1024 key (algorithm 1)."""
    CHALLENGE_UNKNOWN = "ChallengeUnknown"
    """Begin again: the nonce is for another key, made up, or from before a restart of TrustChain."""
    CHALLENGE_EXPIRED = "ChallengeExpired"
    """Begin again and complete within 60 seconds."""
    CHALLENGE_USED = "ChallengeUsed"
    """Begin again: a nonce is good once."""
    BAD_SIGNATURE = "BadSignature"
    """Sign nonce, token digest and CSR digest with the secret half of the key that is enrolled."""
    CSR_INVALID = "CsrInvalid"
    """Send a PKCS#10 request for an ECDSA P-256 or P-384 key, signed by that key."""
    TOKEN_INVALID = "TokenInvalid"  # noqa: S105 - a reason, no password
    """Mount a projected token with audience hypermesh-trustchain, and read the file anew for each enrolment."""
    TOKEN_UNBOUND = "TokenUnbound"  # noqa: S105
    """Use the projected token of a running pod; tokens made by hand name no pod or node."""
    ACCOUNT_UNKNOWN = "AccountUnknown"
    """Only the service accounts of the chart, in its namespace, may enrol."""
    TOO_MANY_KEYS = "TooManyKeys"
    """Let the node use the key it enrolled before; a lost key makes room when its certificate ends, within 7 days."""
    REGISTRY_FULL = "RegistryFull"
    """One cluster holds no more nodes: places become free 90 days after a node's last certificate ended."""
    BUSY = "Busy"
    """Wait a minute and begin again."""


class EnrolmentRefused(Exception):
    """An enrolment that isn't granted; the message says what is wrong and what to do, and holds no secret."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
