"""The allocations controller: policy, four proofs, ledger, mapping, Ready."""
