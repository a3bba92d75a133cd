"""TrustChain: holds the root, enrols nodes and services, fixes the federation prefix."""
