"""The domain: address codec, canonical encoding, crypto, certificates, proofs, operations, units. No input or output."""
