"""Thin clients that several processes share: Kubernetes API, ledger, TrustChain, probes and metrics."""
