//! Transactions read and hashed: what `hypermesh.operations.decode` does with the outer message of an operation.
//!
//! What is read here is read there, with the same result; what is not, that one reads and refuses in its own words. So
//! this has to be right about what it accepts, and may give up on anything.

use crate::buckets::{sha256, Hash};
use prost::Message;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// `SIGNATURE_ALGORITHM_FALCON_PADDED_1024`.
const ALGORITHM: i32 = 1;
const SIGNATURE_BYTES: usize = 1280;
/// Levels of a batch's tree; `hypermesh.batches`.
const MAX_DEPTH: usize = 12;
const MARK: &[u8] = b"batch";

/// `hypermesh.v1.TicketRefs`.
#[derive(Clone, PartialEq, Message)]
struct Tickets {
    #[prost(bytes = "vec", tag = "1")]
    space: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    stake: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    work: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    time: Vec<u8>,
}

/// `hypermesh.v1.Envelope`.
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(bytes = "vec", tag = "1")]
    operation: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    tickets: Option<Tickets>,
    #[prost(bytes = "vec", tag = "3")]
    signer: Vec<u8>,
    #[prost(int32, tag = "4")]
    algorithm: i32,
    #[prost(bytes = "vec", tag = "5")]
    signature: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    batch_path: Vec<Vec<u8>>,
    #[prost(uint32, tag = "7")]
    batch_index: u32,
}

/// `hypermesh.digests.digest`.
fn digest(domain: &str, [first, second]: [&[u8]; 2]) -> Hash {
    let size = |part: &[u8]| (part.len() as u64).to_be_bytes();
    sha256(&[b"hypermesh/", domain.as_bytes(), &[0], &size(first), first, &size(second), second])
}

impl Envelope {
    /// An envelope of one encoding, whose fields have the form that they must have.
    fn read(raw: &[u8]) -> Option<Self> {
        let read = Self::decode(raw).ok()?;
        let well_formed = read.algorithm == ALGORITHM
            && read.signer.len() == 32
            && read.signature.len() == SIGNATURE_BYTES
            && read.path_well_formed()
            && read.encode_to_vec() == raw;
        well_formed.then_some(read)
    }

    /// `hypermesh.batches.well_formed`.
    fn path_well_formed(&self) -> bool {
        let depth = self.batch_path.len();
        let inside = depth <= MAX_DEPTH && self.batch_index >> depth == 0;
        inside && self.batch_path.iter().all(|sibling| sibling.len() == 32)
    }

    /// What the signature is over: `hypermesh.operations.signed_parts`, hashed.
    fn signed(&self) -> Hash {
        let tickets = self.tickets.as_ref().map(Message::encode_to_vec).unwrap_or_default();
        if self.batch_path.is_empty() {
            return digest("operation", [&self.operation, &tickets]);
        }
        let mut node = digest("batch/leaf", [&self.operation, &tickets]);
        for (level, sibling) in self.batch_path.iter().enumerate() {
            let right = self.batch_index >> level & 1 == 1;
            node = digest("batch/node", if right { [sibling, &node] } else { [&node, sibling] });
        }
        digest("operation", [&node, MARK])
    }
}

type Bytes<'py> = Bound<'py, PyBytes>;
type Named<'py> = (Bytes<'py>, Bytes<'py>, Bytes<'py>, Bytes<'py>);
type Read<'py> = (Bytes<'py>, Option<Named<'py>>, Bytes<'py>, Bytes<'py>, Bytes<'py>, Bytes<'py>, Bytes<'py>);

/// See `_core.pyi`.
#[pyfunction]
pub fn read_envelope<'py>(py: Python<'py>, raw: &[u8]) -> Option<Read<'py>> {
    let read = Envelope::read(raw)?;
    let signed = read.signed();
    let claim = digest("check/claim", [&read.signature, &signed]);
    let new = |bytes: &[u8]| PyBytes::new(py, bytes);
    let tickets = read.tickets.map(|named| (new(&named.space), new(&named.stake), new(&named.work), new(&named.time)));
    Some((
        new(&read.operation),
        tickets,
        new(&read.signer),
        new(&read.signature),
        new(&signed),
        new(&claim),
        new(&sha256(&[raw])),
    ))
}
