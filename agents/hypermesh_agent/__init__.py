"""The node agent: probes hardware, publishes Assets, wins proofs, enforces allocations, answers at proxy addresses."""

import os

# gRPC's own log writes what strangers send, raw bytes and all, on stderr. It reads this when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
