//! The two leaves of a bucket of the state, and what a block's writes make of them (see `hypermesh_ledger.commitment`).

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// SHA-256.
pub type Hash = [u8; 32];
/// First two bytes of a key's hash, as a number.
pub type Bucket = u16;
/// Keys of one bucket with the hashes of their values, in the order of the keys.
type Entries<'a> = BTreeMap<&'a [u8], Hash>;

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

/// Both leaves of a bucket.
pub fn leaves_of<'a>(bucket: Bucket, entries: impl IntoIterator<Item = (&'a [u8], Hash)>) -> [Hash; 2] {
    let (mut hashes, mut listing) = (Vec::new(), Sha256::new_with_prefix(b"\x01"));
    for (key, hashed) in entries {
        hashes.push(leaf_of(key, &hashed));
        listing.update([key.len() as u8]);
        listing.update(key);
        listing.update(hashed);
    }
    let named = [LISTING, &bucket.to_be_bytes()].concat();
    [leaf_of(b"", &sha256(&[&root_of(&hashes)])), leaf_of(&named, &listing.finalize().into())]
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

/// 64 bytes: both leaves of a bucket that holds these entries, which are in the order of their keys.
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
    Ok(PyBytes::new(py, leaves_of(self::bucket(bucket)?, entries).as_flattened()))
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

    fn settle<'py>(
        &self,
        py: Python<'py>,
        held: Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>,
    ) -> PyResult<(Bound<'py, PyDict>, Bound<'py, PyDict>)> {
        let mut entries: BTreeMap<Bucket, Entries<'_>> = BTreeMap::new();
        for (named, hashed) in &held {
            let Some((name, key)) = named.as_bytes().split_at_checked(2) else {
                return Err(PyValueError::new_err("an entry without a bucket"));
            };
            entries.entry(bucket(name)?).or_default().insert(check_key(key)?, hash(hashed.as_bytes())?);
        }
        let (leaves, hashes) = (PyDict::new(py), PyDict::new(py));
        for (&bucket, changes) in &self.changes {
            let mut after = entries.remove(&bucket).unwrap_or_default();
            let mut changed = false;
            for (key, hashed) in changes {
                let before = match *hashed {
                    Some(hashed) => after.insert(key, hashed),
                    None => after.remove(key.as_slice()),
                };
                changed |= before != *hashed;
            }
            if !changed {
                continue;
            }
            let name = bucket.to_be_bytes();
            leaves.set_item(PyBytes::new(py, &name), PyBytes::new(py, leaves_of(bucket, after).as_flattened()))?;
            for (key, hashed) in changes {
                let hashed = hashed.map(|hashed| PyBytes::new(py, &hashed));
                hashes.set_item(PyBytes::new(py, &[&name, key.as_slice()].concat()), hashed)?;
            }
        }
        Ok((leaves, hashes))
    }
}
