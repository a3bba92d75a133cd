"""What can go wrong between us and the API server, as types.

`error_from_status` turns an HTTP status and the server's `Status` object into one of them, so callers
decide by type (`except Conflict`) and people read which object, what is wrong and what to do.
"""

from __future__ import annotations

from typing import Any, ClassVar


class KubeError(Exception):
    """A request the API server didn't fulfil. `about` names the object, `status` is the HTTP code (0: none)."""

    remedy: ClassVar[str] = "Read the message above; the API server's log has the request."

    def __init__(self, about: str, message: str, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(f"{about}: {message}. {self.remedy}")
        self.about = about
        self.message = message
        self.status = status
        self.retry_after = retry_after


class NotFound(KubeError):
    """404: neither object nor, perhaps, its kind exists."""

    remedy = "Create it first; if the whole kind is missing, install the CRDs (kubectl apply -f crds/)."


class AlreadyExists(KubeError):
    """409 on create: an object of this name is there."""

    remedy = "Use the existing object, or apply instead of create."


class Conflict(KubeError):
    """409 on a write: somebody changed the object, or owns the field."""

    remedy = "Read the object again and decide anew."


class Invalid(KubeError):
    """400 or 422: schema, CEL rule or admission policy refuses the content. The message names the field."""

    remedy = "Correct the named field."


class Forbidden(KubeError):
    """401 or 403: not who we should be, or not allowed."""

    remedy = "Check the service account's Role and RoleBinding (kubectl auth can-i --list --as=...) and its token."


class Expired(KubeError):
    """410: the resource version or continue token is older than what the server remembers."""

    remedy = "List again from the start."


class Unavailable(KubeError):
    """No answer, or an answer that says later (429, 5xx): nothing is known about the outcome of a write."""

    remedy = "Check that the API server runs and is reachable; it is tried again."


_BY_REASON: dict[str, type[KubeError]] = {
    "NotFound": NotFound,
    "AlreadyExists": AlreadyExists,
    "Conflict": Conflict,
    "Invalid": Invalid,
    "BadRequest": Invalid,
    "Forbidden": Forbidden,
    "Unauthorized": Forbidden,
    "Expired": Expired,
    "Gone": Expired,
    "Timeout": Unavailable,
    "ServerTimeout": Unavailable,
    "TooManyRequests": Unavailable,
    "ServiceUnavailable": Unavailable,
    "InternalError": Unavailable,
}
_BY_CODE: dict[int, type[KubeError]] = {
    400: Invalid,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Expired,
    413: Invalid,
    415: Invalid,
    422: Invalid,
    429: Unavailable,
}


def error_from_status(about: str, code: int, body: Any, retry_after: float | None = None) -> KubeError:
    """The error for HTTP `code` and the decoded `Status` body (or whatever came in its place)."""
    status = body if isinstance(body, dict) else {}
    reason = str(status.get("reason") or "")
    message = str(status.get("message") or (body if isinstance(body, str) else "") or f"HTTP {code}").strip()
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code) or (Unavailable if code >= 500 else KubeError)
    if retry_after is None and isinstance(details := status.get("details"), dict):
        seconds = details.get("retryAfterSeconds")
        retry_after = float(seconds) if isinstance(seconds, int | float) else None
    return kind(about, message.rstrip("."), code, retry_after)
