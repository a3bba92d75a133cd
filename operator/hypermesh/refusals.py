"""Why the ledger refuses an operation: one reason for each cause, each with its remedy.

Every refusal travels as (reason, message): the reason is a CamelCase word that conditions, events and metrics
show unchanged; the message names the object and what is wrong with it; the reason's remedy says what to do.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """A cause of refusal. Its value travels on the wire; `remedy` is for people (also the member's docstring)."""

    remedy: str

    def __new__(cls, value: str, remedy: str = "") -> Reason:
        member = str.__new__(cls, value)
        member._value_ = value
        member.remedy = remedy
        member.__doc__ = remedy
        return member

    # Form of the transaction
    Malformed = "Malformed", "Build the operation with hypermesh.operations; a field is missing or out of range."
    TooLarge = "TooLarge", "Keep an envelope at 1 MiB or less; send fewer devices in one operation."
    NotCanonical = "NotCanonical", "Serialize deterministically and without unknown fields."
    WrongChain = "WrongChain", "Sign for the chain id that the ledger's Status shows."
    Expired = "Expired", "Sign again with a validity that ends in the future, and check this machine's clock."
    ValidityTooLong = "ValidityTooLong", "Let the validity end at most ten minutes after the block's time."
    # Who signed
    UnknownSigner = "UnknownSigner", "Enrol the key first (EnrolNode with its TrustChain certificate)."
    UnsupportedAlgorithm = "UnsupportedAlgorithm", "Sign with Falcon-padded-1024."
    BadSignature = "BadSignature", "Sign the exact operation and ticket bytes with the enrolled key."
    RoleForbidden = "RoleForbidden", "Use a key whose role and cluster may do this, or ask the asset's owner."
    CertificateInvalid = "CertificateInvalid", "Get a new certificate from TrustChain and enrol again."
    NodeAddressTaken = "NodeAddressTaken", "Ask TrustChain for a certificate with the next node counter."
    # The four tickets of an operation
    SpaceTicketMissing = "SpaceTicketMissing", "Let the node win a space ticket (Prove) and name its hash."
    SpaceTicketStale = "SpaceTicketStale", "Name the node's newest space ticket; check that its agent proves."
    SpaceTicketForeign = "SpaceTicketForeign", "Name a space ticket of the asset's own node."
    StakeTicketMissing = "StakeTicketMissing", "Derive the stake ticket from the signer's certificate."
    StakeTicketStale = "StakeTicketStale", "Derive the stake ticket for the current epoch."
    StakeTicketForeign = "StakeTicketForeign", "Derive the stake ticket from the signer's own certificate."
    WorkTicketMissing = "WorkTicketMissing", "Let the device win a work ticket (CommitWork, Prove) and name its hash."
    WorkTicketStale = "WorkTicketStale", "Name the device's newest work ticket; check that its agent proves."
    WorkTicketForeign = "WorkTicketForeign", "Name a work ticket of the asset's own device."
    WorkTicketRevoked = "WorkTicketRevoked", "Let the device compute right results and win a ticket in the next epoch."
    TimeTicketMissing = "TimeTicketMissing", "Let the node win a time ticket (Prove) and name its hash."
    TimeTicketStale = "TimeTicketStale", "Name the node's newest time ticket; check that its agent proves."
    TimeTicketForeign = "TimeTicketForeign", "Name a time ticket of the asset's own node."
    # Winning tickets
    EpochWrong = "EpochWrong", "Prove for the ledger's current epoch."
    NotCommitted = "NotCommitted", "Commit the work of the epoch (CommitWork) in an earlier block, then prove."
    AlreadyCommitted = "AlreadyCommitted", "Use the seed of the commitment already made for this epoch."
    AlreadyProven = "AlreadyProven", "Nothing to do: the tickets of this epoch are won already."
    SpaceProofInvalid = "SpaceProofInvalid", "Answer from the node's own plot or memory; make it anew when damaged."
    WorkProofInvalid = "WorkProofInvalid", "Open exactly the tiles that the seed samples, for every committed device."
    TimeProofInvalid = "TimeProofInvalid", "Run the VDF on the epoch's challenge for the required iterations."
    MemoryLate = "MemoryLate", "Commit at the beginning of the next epoch; check what slowed this one."
    MemoryTicketMissing = "MemoryTicketMissing", "Let the node prove this memory (CommitMemory, ProveMemory) first."
    MemoryTicketStale = "MemoryTicketStale", "Choose another asset; check that the memory's node still proves it."
    MemoryNotShown = "MemoryNotShown", "Ask for less, wait for the memory's next ticket, or choose another asset."
    # Assets
    IdentifierWrong = "IdentifierWrong", "Derive ids with hypermesh.operations.asset_id and allocation_id."
    NoSuchAsset = "NoSuchAsset", "Register the asset, or choose one that is registered."
    AssetRetired = "AssetRetired", "Choose another asset, or let its node register it again."
    AssetPaused = "AssetPaused", "Choose another asset, or ask its owner to share it again."
    RevisionConflict = "RevisionConflict", "Read the asset's record again and follow its newest revision."
    AssetBusy = "AssetBusy", "Release the asset's allocations first."
    # Delegations
    TooManyDelegates = "TooManyDelegates", "Revoke a delegation first, or wait until one ends."
    NotDelegated = "NotDelegated", "Nothing to revoke: this key has no delegation of yours."
    # Allocations
    InsufficientCapacity = "InsufficientCapacity", "Ask for less, wait for a release, or choose another asset."
    PrivacyForbidden = "PrivacyForbidden", "Choose an asset shared with this cluster, namespace and privacy level."
    TrustTooLow = "TrustTooLow", "Lower the trust limit or choose an asset of a node with a higher trust score."
    PriceTooHigh = "PriceTooHigh", "Raise the price limit or choose a cheaper asset."
    AddressTaken = "AddressTaken", "Derive the address with the next counter."
    AddressWrong = "AddressWrong", "Derive the address from the owning node's certificate, the asset and the counter."
    AllocationConflict = "AllocationConflict", "Keep the committed allocation, or use a new resource uid."
    AllocationEnded = "AllocationEnded", "Create a new Allocation; an ended one does not come back."
    NoSuchAllocation = "NoSuchAllocation", "Nothing to release: the ledger holds no such allocation."
    LeaseInvalid = "LeaseInvalid", "Ask for a lease between one second and one year."
    # Validators
    PossessionUnproven = "PossessionUnproven", "Sign chain id and key id with the very consensus key that shall join."
    ConsensusKeyTaken = "ConsensusKeyTaken", "Every seat has a consensus key of its own: start with an empty directory."
    FounderUnknown = "FounderUnknown", "Start the first validator with --p2p-address, so that it makes its seat known."
    ValidatorExpelled = "ValidatorExpelled", "Nothing: who signed two blocks of one height stays out for good."
    SeatResting = "SeatResting", "Wait ten minutes: until then an old JoinValidator could still be repeated."
    NotValidator = "NotValidator", "Nothing to leave: this key holds no seat."
    ExtensionsNeeded = "ExtensionsNeeded", "Start the validator with a version of hypermesh-ledger that extends votes."
    TooFewValidators = "TooFewValidators", "Let others join first: fewer than four could not do without one of them."
    # The ledger itself
    MempoolFull = "MempoolFull", "Submit again after a moment; the ledger has more waiting than it accepts."


class Refused(Exception):
    """The ledger's lasting answer "no" to one operation: submitting the same bytes again will not help."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{reason}: {message} {reason.remedy}".strip())
        self.reason = reason
        self.message = message
