"""The domain: address codec, canonical encoding, keys, certificates, proofs, operations, units. No input or output."""
