"""Checks proof bundles of the ledger offline. Imports nothing of the ledger: hashlib, and `cryptography` for ML-DSA."""
