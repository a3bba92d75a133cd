"""Builds the one container image with whichever engine works here, and writes it as one archive.

context (what goes in, under which key) -> engines (docker, podman or buildah) -> base (pull it, else bootstrap it)
-> reuse (host-built binaries that are the same bytes) -> building (run it) -> archive (OCI layout -> one tar).
Standard library only: this runs before any virtual environment exists.
"""
