"""The node agent: probes hardware, publishes Assets, wins proofs, enforces allocations, answers at proxy addresses."""
