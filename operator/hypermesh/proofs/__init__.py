"""The proofs of space, work and time, and the tickets they win: pure verifiers, the same answer on every machine.

Data flow: beacon → `challenges.challenge` → the node's provers (hypermesh_agent.proofs) → `space.verify_space`,
`memory.verify_memory`, `work.verify_work`, `delay.verify_time` → `tickets` → operations. Proof of stake has no answer
to compute: its ticket follows from the enrolment.

Rules of every verifier here: integers only, no clock, no randomness; lengths and ranges are checked before any
native code sees a byte; a bad proof raises ProofRefused, never anything else. Native modules (chiapos, chiavdf,
numpy, Argon2's) are imported inside the functions that need them, so that processes which only handle tickets stay
small.
What the proofs don't prove: docs/concepts/proofs.md.
"""

from hypermesh.proofs.challenges import challenge, plot_id, space_challenge, work_key, work_samples
from hypermesh.proofs.delay import verify_time
from hypermesh.proofs.memory import verify_memory
from hypermesh.proofs.refusals import ProofRefused
from hypermesh.proofs.space import verify_space
from hypermesh.proofs.tickets import space_ticket, stake_ticket_hash, ticket_hash, time_ticket, work_ticket
from hypermesh.proofs.work import verify_work

__all__ = [
    "ProofRefused",
    "challenge",
    "plot_id",
    "space_challenge",
    "space_ticket",
    "stake_ticket_hash",
    "ticket_hash",
    "time_ticket",
    "verify_memory",
    "verify_space",
    "verify_time",
    "verify_work",
    "work_key",
    "work_samples",
    "work_ticket",
]
