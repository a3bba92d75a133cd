//! The ledger's hottest leaves, out of Python:
//!
//! - `signatures`: FALCON-1024 verified by a thread of its own, which never waits for the interpreter;
//! - `envelopes`: transactions read and hashed;
//! - `tree` and `buckets`: the hashes of which an app hash is made (what they are: `hypermesh_ledger.commitment`);
//! - `undo`: the row of history that goes with them.
//!
//! No code here may be unsafe; what the processor's vector and SHA instructions need is inside the crates used.
#![forbid(unsafe_code)]

mod buckets;
mod envelopes;
mod signatures;
mod tree;
mod undo;

/// Compiled part of the Python package `hypermesh_native`.
#[pyo3::pymodule]
mod _core {
    #[pymodule_export]
    use crate::buckets::{bucket_leaves, leaf, tree_root};
    #[pymodule_export]
    use crate::envelopes::read_envelope;
    #[pymodule_export]
    use crate::signatures::{verify, Signatures};
    #[pymodule_export]
    use crate::tree::{Tree, Update};
}
