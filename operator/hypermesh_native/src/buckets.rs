//! The state's buckets: what each lists, its leaves, and what a block's writes make of them (see
//! `hypermesh_ledger.commitment`).

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// SHA-256.
pub type Hash = [u8; 32];
/// First two bytes of a key's hash, as a number.
pub type Bucket = u16;
/// A key of a bucket with the hash of its value.
pub type Entry<'a> = (&'a [u8], Hash);
/// Both leaves of a bucket.
pub type Leaves = [Hash; 2];
/// What a block writes, by bucket: the values' hashes, None for what it deletes.
pub type Changes = BTreeMap<Bucket, BTreeMap<Vec<u8>, Option<Hash>>>;

const LISTING: &[u8] = b"\0B";

pub fn sha256(parts: &[&[u8]]) -> Hash {
    let mut digest = Sha256::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize().into()
}

/// A node above two others (RFC 6962).
pub fn inner(left: &Hash, right: &Hash) -> Hash {
    sha256(&[b"\x01", left, right])
}

/// A leaf in the form `simple:v`; the caller has seen to it that the key has fewer than 256 bytes.
pub fn leaf_of(key: &[u8], hashed: &Hash) -> Hash {
    sha256(&[&[0, key.len() as u8], key, b"\x20", hashed])
}

fn root_of(hashes: &[Hash]) -> Hash {
    match hashes {
        [] => sha256(&[]),
        [one] => *one,
        _ => {
            let (left, right) = hashes.split_at(hashes.len().next_power_of_two() / 2);
            inner(&root_of(left), &root_of(right))
        }
    }
}

/// The beginning of a listing; entries follow, in the order of their keys.
pub const LISTED: u8 = 1;

/// Add an entry to a listing.
pub fn list(listing: &mut Vec<u8>, key: &[u8], hashed: &Hash) {
    listing.push(key.len() as u8);
    listing.extend_from_slice(key);
    listing.extend_from_slice(hashed);
}

/// A bucket's listing and its leaves. Entries are in the order of their keys.
pub fn listed<'a>(bucket: Bucket, entries: impl IntoIterator<Item = Entry<'a>>) -> (Vec<u8>, Leaves) {
    let (mut hashes, mut listing) = (Vec::new(), vec![LISTED]);
    for (key, hashed) in entries {
        hashes.push(leaf_of(key, &hashed));
        list(&mut listing, key, &hashed);
    }
    let leaves = [leaf_of(b"", &sha256(&[&root_of(&hashes)])), listing_leaf(bucket, &listing)];
    (listing, leaves)
}

fn listing_leaf(bucket: Bucket, listing: &[u8]) -> Hash {
    leaf_of(&[LISTING, &bucket.to_be_bytes()].concat(), &sha256(&[listing]))
}

/// The entries of a listing that `list` has made, in the order of the keys; what is none ends it.
pub fn entries_of(listing: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut rest = listing.get(1..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first()?;
        let (key, after) = after.split_at_checked((*length).into())?;
        let (hashed, after) = after.split_first_chunk()?;
        rest = after;
        Some((key, *hashed))
    })
}

/// What a bucket holds after some of its keys changed; both are in the order of their keys.
pub fn merged<'a>(held: &[Entry<'a>], changes: &'a BTreeMap<Vec<u8>, Option<Hash>>) -> Vec<Entry<'a>> {
    let mut after = Vec::with_capacity(held.len() + changes.len());
    let mut held = held.iter().copied().peekable();
    for (key, hashed) in changes {
        while let Some(entry) = held.next_if(|(other, _)| *other < key.as_slice()) {
            after.push(entry);
        }
        held.next_if(|(other, _)| *other == key.as_slice());
        after.extend(hashed.map(|hashed| (key.as_slice(), hashed)));
    }
    after.extend(held);
    after
}

pub fn check_key(key: &[u8]) -> PyResult<&[u8]> {
    if key.len() < 256 {
        return Ok(key);
    }
    Err(PyValueError::new_err(format!("a key of {} bytes", key.len())))
}

fn hash(value: &[u8]) -> PyResult<Hash> {
    value.try_into().map_err(|_| PyValueError::new_err(format!("a hash of {} bytes", value.len())))
}

/// A bucket from its two bytes.
pub fn bucket(name: &[u8]) -> PyResult<Bucket> {
    let name = name.try_into().map_err(|_| PyValueError::new_err(format!("a bucket of {} bytes", name.len())))?;
    Ok(Bucket::from_be_bytes(name))
}

/// `simple:v` leaf of a key and the hash of its value.
#[pyfunction]
pub fn leaf<'py>(py: Python<'py>, key: &[u8], hashed: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(py, &leaf_of(check_key(key)?, &hash(hashed)?)))
}

/// RFC 6962 tree hash of leaf hashes.
#[pyfunction]
pub fn tree_root<'py>(py: Python<'py>, hashes: Vec<Bound<'py, PyBytes>>) -> PyResult<Bound<'py, PyBytes>> {
    let hashes = hashes.iter().map(|each| hash(each.as_bytes())).collect::<PyResult<Vec<_>>>()?;
    Ok(PyBytes::new(py, &root_of(&hashes)))
}

/// Both leaves of a bucket that holds these entries, which are in the order of their keys. See `_core.pyi`.
#[pyfunction]
pub fn bucket_leaves<'py>(
    py: Python<'py>,
    bucket: &[u8],
    entries: Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>,
) -> PyResult<Bound<'py, PyBytes>> {
    let entries = entries
        .iter()
        .map(|(key, hashed)| Ok((check_key(key.as_bytes())?, hash(hashed.as_bytes())?)))
        .collect::<PyResult<Vec<_>>>()?;
    Ok(PyBytes::new(py, listed(self::bucket(bucket)?, entries).1.as_flattened()))
}

/// Which bucket a key is in.
pub fn bucket_of(key: &[u8]) -> Bucket {
    let [first, second, ..] = sha256(&[key]);
    Bucket::from_be_bytes([first, second])
}

/// A block's writes, hashed.
pub fn changes_of(writes: &Bound<'_, PyDict>) -> PyResult<Changes> {
    let mut changes = Changes::new();
    for (key, value) in writes {
        let (key, value): (&[u8], Option<&[u8]>) = (key.extract()?, value.extract()?);
        let hashed = value.map(|value| sha256(&[value]));
        changes.entry(bucket_of(check_key(key)?)).or_default().insert(key.into(), hashed);
    }
    Ok(changes)
}
