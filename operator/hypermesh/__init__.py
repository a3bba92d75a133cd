"""The domain: address codec, canonical encoding, keys, certificates, proofs, operations, units. No input or output."""

import os

# gRPC prepares every fork for a child that goes on with gRPC. Ours only exec, and its preparations crash one child in
# a hundred while other threads are in gRPC (grpc/grpc#22624, #13873). Read when gRPC begins, so it is set before that.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
