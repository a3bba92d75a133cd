//! The rows of the state's buckets, and what a block's writes make of them (see `hypermesh_ledger.commitment`).

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// SHA-256.
pub type Hash = [u8; 32];
/// Rows by bucket, and changed keys.
type Settled<'py> = (Bound<'py, PyDict>, Bound<'py, PyList>);
/// First two bytes of a key's hash, as a number.
pub type Bucket = u16;
/// A key of a bucket with the hash of its value.
type Entry<'a> = (&'a [u8], Hash);

/// Of a row: what of it are the bucket's leaves. The listing follows.
pub const PAIR: usize = 64;

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

/// A bucket's row: both its leaves and the listing that the second is of. Entries are in the order of their keys.
pub fn row_of<'a>(bucket: Bucket, entries: impl IntoIterator<Item = Entry<'a>>) -> Vec<u8> {
    let (mut hashes, mut row) = (Vec::new(), vec![0; PAIR]);
    row.push(1);
    for (key, hashed) in entries {
        hashes.push(leaf_of(key, &hashed));
        row.push(key.len() as u8);
        row.extend_from_slice(key);
        row.extend_from_slice(&hashed);
    }
    let leaves = [leaf_of(b"", &sha256(&[&root_of(&hashes)])), listing_leaf(bucket, &row[PAIR..])];
    row[..PAIR].copy_from_slice(leaves.as_flattened());
    row
}

fn listing_leaf(bucket: Bucket, listing: &[u8]) -> Hash {
    leaf_of(&[LISTING, &bucket.to_be_bytes()].concat(), &sha256(&[listing]))
}

/// What a row lists, in the order of the keys; no entries for no row.
///
/// The listing must be that of its leaf, which the app hash covers: a bit that flipped would go into the next one.
fn entries_of(bucket: Bucket, row: &[u8]) -> PyResult<Vec<Entry<'_>>> {
    let damaged = || PyValueError::new_err(format!("a bucket's row of {} bytes is damaged", row.len()));
    if row.is_empty() {
        return Ok(Vec::new());
    }
    let (pair, listing) = row.split_at_checked(PAIR).ok_or_else(damaged)?;
    if listing_leaf(bucket, listing) != pair[PAIR / 2..] {
        return Err(damaged());
    }
    let mut rest = listing.strip_prefix(&[1]).ok_or_else(damaged)?;
    let mut found = Vec::with_capacity(rest.len() / 64);
    while let [length, after @ ..] = rest {
        let (key, after) = after.split_at_checked((*length).into()).ok_or_else(damaged)?;
        let (hashed, after) = after.split_first_chunk().ok_or_else(damaged)?;
        found.push((key, *hashed));
        rest = after;
    }
    Ok(found)
}

/// What a bucket holds after some of its keys changed; both are in the order of their keys.
fn merged<'a>(held: &[Entry<'a>], changes: &'a BTreeMap<Vec<u8>, Option<Hash>>) -> Vec<Entry<'a>> {
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

fn check_key(key: &[u8]) -> PyResult<&[u8]> {
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

/// The row of a bucket that holds these entries, which are in the order of their keys. See `_core.pyi`.
#[pyfunction]
pub fn bucket_row<'py>(
    py: Python<'py>,
    bucket: &[u8],
    entries: Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>,
) -> PyResult<Bound<'py, PyBytes>> {
    let entries = entries
        .iter()
        .map(|(key, hashed)| Ok((check_key(key.as_bytes())?, hash(hashed.as_bytes())?)))
        .collect::<PyResult<Vec<_>>>()?;
    Ok(PyBytes::new(py, &row_of(self::bucket(bucket)?, entries)))
}

/// What a row lists. See `_core.pyi`.
#[pyfunction]
pub fn row_entries<'py>(
    py: Python<'py>,
    bucket: &[u8],
    row: &[u8],
) -> PyResult<Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>> {
    let entries = entries_of(self::bucket(bucket)?, row)?;
    Ok(entries.iter().map(|(key, hashed)| (PyBytes::new(py, key), PyBytes::new(py, hashed))).collect())
}

/// A block's writes, by bucket. See `_core.pyi`.
#[pyclass(frozen, module = "hypermesh_native")]
pub struct Changes {
    changes: BTreeMap<Bucket, BTreeMap<Vec<u8>, Option<Hash>>>,
}

#[pymethods]
impl Changes {
    #[new]
    fn new(writes: &Bound<'_, PyDict>) -> PyResult<Self> {
        let mut changes: BTreeMap<Bucket, BTreeMap<Vec<u8>, Option<Hash>>> = BTreeMap::new();
        for (key, value) in writes {
            let (key, value): (&[u8], Option<&[u8]>) = (key.extract()?, value.extract()?);
            let [first, second, ..] = sha256(&[check_key(key)?]);
            let hashed = value.map(|value| sha256(&[value]));
            changes.entry(Bucket::from_be_bytes([first, second])).or_default().insert(key.into(), hashed);
        }
        Ok(Self { changes })
    }

    #[getter]
    fn buckets<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.changes.keys().map(|bucket| PyBytes::new(py, &bucket.to_be_bytes())).collect()
    }

    fn settle<'py>(&self, py: Python<'py>, held: Vec<Bound<'py, PyBytes>>) -> PyResult<Settled<'py>> {
        if held.len() != self.changes.len() {
            let text = format!("{} rows for the changes of {} buckets", held.len(), self.changes.len());
            return Err(PyValueError::new_err(text));
        }
        let (rows, keys) = (PyDict::new(py), PyList::empty(py));
        for ((&bucket, changes), row) in self.changes.iter().zip(&held) {
            let before = entries_of(bucket, row.as_bytes())?;
            let after = merged(&before, changes);
            if before == after {
                continue;
            }
            let name = bucket.to_be_bytes();
            rows.set_item(PyBytes::new(py, &name), PyBytes::new(py, &row_of(bucket, after)))?;
            for key in changes.keys() {
                keys.append(PyBytes::new(py, &[&name, key.as_slice()].concat()))?;
            }
        }
        Ok((rows, keys))
    }
}
