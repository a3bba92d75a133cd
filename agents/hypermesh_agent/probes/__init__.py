"""Probes: pure parsers over an injected file tree or a driver's answers, one module a kind of hardware."""
