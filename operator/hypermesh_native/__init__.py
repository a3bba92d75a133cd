"""What the ledger does most often, compiled: signatures verified beside the interpreter, and the state's tree (Rust).

The compiled part is made from `src/` by `make native`, and is in no repository.
"""

from __future__ import annotations

try:
    from hypermesh_native._core import (
        Signatures,
        Tree,
        Update,
        bucket_leaves,
        leaf,
        read_envelope,
        tree_root,
        verify,
    )
except ImportError as error:
    text = f"hypermesh_native's compiled part can't be loaded ({error}): build it with `make native`"
    raise ImportError(text) from error

__all__ = ["Signatures", "Tree", "Update", "bucket_leaves", "leaf", "read_envelope", "tree_root", "verify"]
