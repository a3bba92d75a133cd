"""Runs kubectl against the cluster, and asks the API server whether it is ready."""

from __future__ import annotations

import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from local_cluster.state import ClusterError

POLL_SECONDS = 0.1


def kubectl(binaries: Path, kubeconfig: Path, *arguments: str, stdin: str = "", seconds: float = 60) -> str:
    """What kubectl printed; raises ClusterError with its complaint."""
    done = subprocess.run(
        [str(binaries / "kubectl"), f"--kubeconfig={kubeconfig}", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
    if done.returncode != 0:
        raise ClusterError(f"kubectl {' '.join(arguments[:3])} failed: {done.stderr.strip()[-600:]}")
    return done.stdout


def api_ready(url: str, authority: Path) -> bool:
    """Whether the API server at `url` says it is ready (anonymous access to /readyz is Kubernetes' default)."""
    context = ssl.create_default_context(cafile=str(authority))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(f"{url}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def wait_for_api(url: str, authority: Path, seconds: float, log: Path) -> None:
    """Waits until the API server is ready; raises ClusterError that names its log otherwise."""
    deadline = time.monotonic() + seconds
    while not api_ready(url, authority):
        if time.monotonic() > deadline:
            raise ClusterError(f"the API server at {url} is not ready after {seconds:.0f} s; see {log}")
        time.sleep(POLL_SECONDS)
