"""Challenges that cost no memory until they are answered.

A nonce carries its own proof: 8 bytes of time, 8 random bytes and a 16-byte HMAC over both and the key id,
under a secret of this process. So an unauthenticated flood of Begin can't push honest challenges out of a
table. Remembered, until they would have expired anyway, are only nonces with which somebody enrolled: whoever
asks proves key and token first (`check`, then the proofs, then `use`), so junk answers cost no memory either.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from hypermesh_trustchain.refusals import EnrolmentRefused, Reason

NONCE_BYTES = 32
LIFETIME_MS = 60_000
MAX_ANSWERED = 50_000


class Challenges:
    """Makes and accepts nonces; `now_ms` is any clock that doesn't go back (milliseconds)."""

    def __init__(self, secret: bytes | None = None) -> None:
        self._secret = secret or os.urandom(32)
        self._answered: dict[bytes, int] = {}  # nonce -> when it expires, oldest first

    def make(self, key_id: bytes, now_ms: int) -> bytes:
        """A nonce (32 bytes) for the holder of `key_id`, good once within 60 s."""
        head = now_ms.to_bytes(8, "big") + os.urandom(8)
        return head + self._tag(head, key_id)

    def check(self, nonce: bytes, key_id: bytes, now_ms: int) -> None:
        """Raises EnrolmentRefused unless the nonce is of ours, for this key, in time and unused; remembers nothing."""
        head, tag = nonce[:16], nonce[16:]
        if len(nonce) != NONCE_BYTES or not hmac.compare_digest(tag, self._tag(head, key_id)):
            raise EnrolmentRefused(Reason.CHALLENGE_UNKNOWN, "this nonce wasn't made for this key; begin again")
        expires = int.from_bytes(head[:8], "big") + LIFETIME_MS
        if now_ms >= expires:
            raise EnrolmentRefused(
                Reason.CHALLENGE_EXPIRED, f"the nonce was good for {LIFETIME_MS // 1000} s; begin again"
            )
        self._check_unused(nonce)

    def use(self, nonce: bytes, now_ms: int) -> None:
        """Uses a checked nonce up, once key and token are proven. Of two that come here at once the second is refused.

        Raises EnrolmentRefused.
        """
        self._check_unused(nonce)
        self._forget(now_ms)
        if len(self._answered) >= MAX_ANSWERED:
            raise EnrolmentRefused(Reason.BUSY, "too many enrolments within a minute; begin again in a minute")
        self._answered[nonce] = now_ms + LIFETIME_MS

    def _check_unused(self, nonce: bytes) -> None:
        if nonce in self._answered:
            raise EnrolmentRefused(Reason.CHALLENGE_USED, "the nonce was used before; begin again")

    def _forget(self, now_ms: int) -> None:
        while self._answered:
            oldest = next(iter(self._answered))
            if self._answered[oldest] > now_ms:
                return
            del self._answered[oldest]

    def _tag(self, head: bytes, key_id: bytes) -> bytes:
        return hmac.digest(self._secret, b"hypermesh/enrolment-nonce\0" + head + key_id, hashlib.sha256)[:16]
