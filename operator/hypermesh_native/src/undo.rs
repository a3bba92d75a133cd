//! Rows of what a block has overwritten: the protobuf message `hypermesh.v1.Undo`, two lists of entries.

/// The list of values, by bucket and key.
pub const VALUES: u8 = 1;
/// The list of leaves, by bucket.
pub const LEAVES: u8 = 2;

/// A field of bytes: tag, length, and bytes that follow. Field numbers are below 16.
fn begin(row: &mut Vec<u8>, field: u8, length: usize) {
    row.push(field << 3 | 2);
    let mut rest = length;
    while rest > 0x7f {
        row.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    row.push(rest as u8);
}

/// How long a field of so many bytes is.
fn size(length: usize) -> usize {
    let bits = usize::BITS - (length | 1).leading_zeros();
    1 + bits.div_ceil(7) as usize + length
}

/// Add an entry to one of the lists; proto3 leaves out what is empty.
pub fn put(row: &mut Vec<u8>, list: u8, key: &[u8], value: &[u8]) {
    let parts = [(1, key), (2, value)].into_iter().filter(|(_, bytes)| !bytes.is_empty());
    begin(row, list, parts.clone().map(|(_, bytes)| size(bytes.len())).sum());
    for (field, bytes) in parts {
        begin(row, field, bytes.len());
        row.extend_from_slice(bytes);
    }
}
