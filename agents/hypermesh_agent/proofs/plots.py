"""Plots of this node: make one, check one, answer challenges from it. Runs in a worker process only.

A plot is one file ``plot-k<k>-<first 16 hex digits of its id>.plot`` in the plot directory; it is made in a
folder beside it and renamed when complete, so a file of that name is whole. Plots are deterministic: a damaged
one is worth nothing and is made again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypermesh.digests import digest
from hypermesh.proofs import plot_id, space_challenge, verify_space
from hypermesh.v1 import proofs_pb2

_BUFFER_MIB = 256
_STRIPE = 4096
_THREADS = 2
# Peak of temporary and final files beside the finished plot's size, measured for k 18 … 25 and as chiapos documents.
_PEAK = 4
# Challenges that a plot must survive before it counts as sound; an honest one answers about two thirds.
_CHECKS = 32
_CHECKS_ANSWERED = 8


class PlotUnusable(Exception):
    """No sound plot where one is needed; the message says which file and what to do."""


def plot_path(directory: Path, node: bytes, k: int) -> Path:
    """Where the plot of size `k` of a node's key id lies."""
    return directory / f"plot-k{k}-{plot_id(node).hex()[:16]}.plot"


def plot_bytes(k: int) -> int:
    """About how large a finished plot is: 0.78 · (2k + 1) · 2^(k−1) bytes, within a few per cent."""
    return 78 * (2 * k + 1) * (1 << (k - 1)) // 100


def ensure(directory: Path, node: bytes, k: int, *, anew: bool = False) -> bool:
    """Have a sound plot in place; True when it was made now, False when it was there (never with `anew`).

    Raises PlotUnusable when there is no room for it or chiapos fails.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(directory):
        path = plot_path(directory, node, k)
        if path.exists() and not anew:
            try:
                check(directory, node, k)
            except PlotUnusable:
                pass
            else:
                return False
        path.unlink(missing_ok=True)
        _make(directory, node, k)
        check(directory, node, k)
        return True


def check(directory: Path, node: bytes, k: int) -> None:
    """Raise PlotUnusable unless the plot answers test challenges, and answers them right."""
    answers = _answers(directory, node, k, digest("plot/check", node), _CHECKS)
    if len(answers) < _CHECKS_ANSWERED:
        raise PlotUnusable(
            f"plot {plot_path(directory, node, k)} answers {len(answers)} of {_CHECKS} test challenges: it is damaged; "
            "delete it, and the agent makes it again"
        )


def answer(directory: Path, node: bytes, k: int, c: bytes, params: proofs_pb2.ProofParameters) -> proofs_pb2.SpaceProof:
    """All answers that the plot has to challenge `c`, verified. Raises PlotUnusable, or ProofRefused when too few."""
    answers = _answers(directory, node, k, c, params.space_challenges)
    proof = proofs_pb2.SpaceProof(k=k, answers=answers[: params.space_required])
    verify_space(node, c, proof, params)
    return proof


def _answers(directory: Path, node: bytes, k: int, c: bytes, challenges: int) -> list[proofs_pb2.SpaceAnswer]:
    """Every verified answer to the sub-challenges of `c`, at most one each, sorted by index."""
    import chiapos

    path = plot_path(directory, node, k)
    try:
        plot = chiapos.DiskProver(str(path))
    except (RuntimeError, ValueError, OSError) as error:
        raise PlotUnusable(f"plot {path} can't be opened ({error}): make it again by restarting the agent") from error
    if (plot.get_id(), plot.get_size()) != (plot_id(node), k):
        raise PlotUnusable(f"plot {path} belongs to another node or has another k: delete it")
    verifier = chiapos.Verifier()
    found = []
    for index in range(challenges):
        asked = space_challenge(c, index)
        proof = _first_answer(plot, asked)
        if proof is not None and verifier.validate_proof(plot_id(node), k, asked, proof):
            found.append(proofs_pb2.SpaceAnswer(index=index, proof=proof))
    return found


def _first_answer(plot: Any, asked: bytes) -> bytes | None:
    """The plot's first proof for a challenge, None when it has none or is damaged at that place."""
    try:
        if not plot.get_qualities_for_challenge(asked):
            return None
        proof: bytes = plot.get_full_proof(asked, 0)
    except (RuntimeError, ValueError):
        return None
    return proof


def _make(directory: Path, node: bytes, k: int) -> None:
    """Plot into a folder of its own, then rename; leftovers of an interrupted run are removed first."""
    import chiapos

    temporary = directory / "making"
    shutil.rmtree(temporary, ignore_errors=True)
    needed = _PEAK * plot_bytes(k)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise PlotUnusable(
            f"a plot of k={k} needs {needed >> 20} MiB in {directory} while it is made, {free >> 20} MiB are free: "
            "free space, or choose another pool directory"
        )
    temporary.mkdir(mode=0o700)
    path = plot_path(directory, node, k)
    folder = str(temporary)
    try:
        chiapos.DiskPlotter().create_plot_disk(
            folder, folder, folder, path.name, k, b"", plot_id(node), _BUFFER_MIB, 0, _STRIPE, _THREADS, False
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise PlotUnusable(f"plotting k={k} in {directory} failed: {error}") from error
    made = temporary / path.name
    with made.open("rb") as file:
        os.fsync(file.fileno())
    made.rename(path)
    shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One plotter a directory; a second one waits. The lock dies with its process."""
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
