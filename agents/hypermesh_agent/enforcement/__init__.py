"""Limits made real: memory and storage regions, CPU and GPU holds, as many and as large as the ledger granted."""
