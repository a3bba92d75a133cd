"""The resource service: what answers at this node's proxy addresses."""
