"""Free memory, filled so that it can be proven, and given back the moment that anybody needs it."""
