"""The next enrolment, while the present one serves.

    two thirds of its life -> obtain, again every minute until there is a newer one -> the agent's next life

Nothing that goes wrong with renewing ends the agent or takes it from service: the certificate lasts days longer than
the first attempt, and what hinders (TrustChain away, damaged trust, a refusal) is told and may be mended meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from .identity import IdentityError, Papers

_log = logging.getLogger(__name__)

PAUSE_S: Final = 60.0
"""Between two attempts."""


class Renewal:
    """Watches over the life of `papers`; `obtain` gives newer ones, or the same when there are none yet."""

    def __init__(self, papers: Papers, obtain: Callable[[], Awaitable[Papers]], pause_s: float = PAUSE_S) -> None:
        self._papers = papers
        self._obtain = obtain
        self._pause_s = pause_s
        self._problem = "TrustChain gave no newer one; see the log lines of hypermesh-agent and hypermesh-trustchain"

    def check(self) -> str | None:
        """Readiness: an ended certificate convinces nobody."""
        if time.time() < self._papers.ends_at:
            return None
        return f"the node's certificate ended at {_moment(self._papers.ends_at)}: {self._problem}"

    async def next(self) -> Papers:
        """Newer papers, however long they take."""
        while True:
            await asyncio.sleep(max(self._papers.renew_at - time.time(), self._pause_s))
            try:
                papers = await self._obtain()
            except (IdentityError, OSError) as error:
                self._problem = str(error)
                _log.warning(
                    "the enrolment, which lasts until %s, is not renewed yet: %s; again in %.0f s",
                    *(_moment(self._papers.ends_at), error, self._pause_s),
                )
                continue
            if papers.certificate != self._papers.certificate:
                return papers


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
