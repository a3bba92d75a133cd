"""hypermesh-operator: the process. Runs one replica until a signal, a lost lease, or a failure a restart may heal."""

from __future__ import annotations

import logging
import sys

from hypermesh_operator import config

_log = logging.getLogger(__name__)

UNWANTED = ("kubernetes", "kubernetes_asyncio", "pykube")
"""Official clients: kopf imports them wherever they are installed, and they would be most of our memory."""


def main() -> None:
    """Entry point; ends with 1 unless a signal ends it."""
    settings = config.parse()
    for module in UNWANTED:
        sys.modules[module] = None  # type: ignore[assignment]

    import uvloop

    from hypermesh_clients import serving
    from hypermesh_operator import replica

    serving.setup_logging("hypermesh-operator", settings.log_level)
    try:
        uvloop.run(serving.run_until_signal(replica.operate(settings)))
    except Exception as error:  # noqa: BLE001 - the last place to tell of it
        cause = _first(error)
        _log.error("stops: %s", cause, exc_info=cause)
        sys.exit(1)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


if __name__ == "__main__":
    main()
