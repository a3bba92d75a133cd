"""Pinned builds of the real components the local cluster runs, into a cache shared by all checkouts.

catalog (what) -> cache (where, and is it there) -> gotool (with which Go) -> building (make it) -> progress (say so).
Standard library only: this runs before any virtual environment exists.
"""
