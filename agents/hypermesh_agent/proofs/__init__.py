"""The proving side of a node: plots, matrix products and delay functions, run in short-lived subprocesses.

Data flow: epochs → `Prover` (in the agent's event loop, holds no native library) → one `worker` process a task
(JSON on stdin and stdout) → `plots`, `products`, `opencl`, chiavdf → messages that hypermesh.proofs verifies.
A worker checks its own answer before it hands it over, and gives all its memory back by ending.
"""

from hypermesh_agent.proofs.prover import OpenclDevice, Prover, ProverFailed, WorkDevice

__all__ = ["OpenclDevice", "Prover", "ProverFailed", "WorkDevice"]
