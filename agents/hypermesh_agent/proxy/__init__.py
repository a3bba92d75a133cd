"""Proxy mappings: verified from the ledger's records, programmed into the kernel, read back and reported."""
