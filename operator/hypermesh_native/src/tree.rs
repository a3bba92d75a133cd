//! The store's tree, complete and in memory: node 1 is the root, node i has children 2i and 2i + 1.
//!
//! Nodes lie in pages that copies share until one of them writes there: a copy is 1024 pointers.

use crate::buckets::{bucket, inner, leaf_of, row_of, sha256, Bucket, Hash, PAIR};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const LEAVES: usize = 2 << Bucket::BITS;
const PAGE: usize = 256;
const STORE_NAME: &[u8] = b"ledger";

#[derive(Clone)]
struct Nodes(Vec<Arc<[Hash; PAGE]>>);

impl Nodes {
    fn get(&self, node: usize) -> &Hash {
        &self.0[node / PAGE][node % PAGE]
    }

    fn set(&mut self, node: usize, hash: Hash) {
        Arc::make_mut(&mut self.0[node / PAGE])[node % PAGE] = hash;
    }

    fn over(leaves: &[Hash]) -> Self {
        let empty = Arc::new([[0; 32]; PAGE]);
        let mut nodes = Self(vec![empty; 2 * LEAVES / PAGE]);
        leaves.iter().enumerate().for_each(|(index, leaf)| nodes.set(LEAVES + index, *leaf));
        for node in (1..LEAVES).rev() {
            let hash = inner(nodes.get(2 * node), nodes.get(2 * node + 1));
            nodes.set(node, hash);
        }
        nodes
    }

    /// All nodes that change when these leaves do; both are in the order of their numbers, the lowest level first.
    fn above(&self, leaves: Vec<(usize, Hash)>) -> Vec<(usize, Hash)> {
        let (mut changed, mut level) = (Vec::with_capacity(leaves.len() * 12), leaves);
        while level.first().is_some_and(|(node, _)| *node > 1) {
            let mut parents = Vec::with_capacity(level.len());
            let mut rest = level.as_slice();
            while let [(node, hash), after @ ..] = rest {
                let sibling = after.first().filter(|(other, _)| *other == node ^ 1);
                rest = if sibling.is_some() { &after[1..] } else { after };
                let other = sibling.map_or_else(|| self.get(node ^ 1), |(_, hash)| hash);
                let (left, right) = if node % 2 == 0 { (hash, other) } else { (other, hash) };
                parents.push((node / 2, inner(left, right)));
            }
            changed.append(&mut level);
            level = parents;
        }
        changed.append(&mut level);
        changed
    }
}

fn app_hash(root: &Hash) -> Hash {
    leaf_of(STORE_NAME, &sha256(&[root]))
}

/// Both leaves of a row.
fn leaves_of(row: &[u8]) -> PyResult<[Hash; 2]> {
    match row.first_chunk::<PAIR>().map(|pair| pair.as_chunks()) {
        Some((&[left, right], [])) => Ok([left, right]),
        _ => Err(PyValueError::new_err(format!("leaves of {} bytes instead of 64", row.len()))),
    }
}

/// What changes when some buckets' leaves do. See `_core.pyi`.
#[pyclass(frozen, module = "hypermesh_native")]
pub struct Update {
    #[pyo3(get)]
    app_hash: Py<PyBytes>,
    nodes: Vec<(usize, Hash)>,
}

/// The tree. See `_core.pyi`.
#[pyclass(frozen, module = "hypermesh_native")]
pub struct Tree {
    nodes: Mutex<Nodes>,
}

impl Tree {
    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Tree {
    #[new]
    fn new(py: Python<'_>, used: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut leaves: Vec<Hash> = Vec::with_capacity(LEAVES);
        for bucket in 0..=Bucket::MAX {
            leaves.extend(leaves_of(&row_of(bucket, []))?);
        }
        for each in used.try_iter()? {
            let (name, row): (Bound<'_, PyBytes>, Bound<'_, PyBytes>) = each?.extract()?;
            let index = 2 * usize::from(bucket(name.as_bytes())?);
            leaves[index..index + 2].copy_from_slice(&leaves_of(row.as_bytes())?);
        }
        let nodes = py.detach(|| Nodes::over(&leaves));
        Ok(Self { nodes: Mutex::new(nodes) })
    }

    fn copy(&self) -> Self {
        Self { nodes: Mutex::new(self.nodes().clone()) }
    }

    #[getter]
    fn app_hash<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &app_hash(self.nodes().get(1)))
    }

    #[pyo3(signature = (index, parts = LEAVES))]
    fn aunts<'py>(&self, py: Python<'py>, index: usize, parts: usize) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        if !parts.is_power_of_two() || parts > LEAVES || index >= parts {
            return Err(PyIndexError::new_err(format!("no part {index} of {parts} in a tree of {LEAVES} leaves")));
        }
        let nodes = self.nodes();
        let way = std::iter::successors(Some(parts + index), |node| Some(node / 2)).take_while(|node| *node > 1);
        Ok(way.map(|node| PyBytes::new(py, nodes.get(node ^ 1))).collect())
    }

    fn update<'py>(&self, py: Python<'py>, rows: &Bound<'py, PyDict>) -> PyResult<Update> {
        let mut changed: BTreeMap<Bucket, [Hash; 2]> = BTreeMap::new();
        for (name, row) in rows {
            changed.insert(bucket(name.extract()?)?, leaves_of(row.extract()?)?);
        }
        let first = |bucket: Bucket| LEAVES + 2 * usize::from(bucket);
        let level =
            changed.into_iter().flat_map(|(bucket, [left, right])| [(first(bucket), left), (first(bucket) + 1, right)]);
        let (nodes, level) = (self.nodes(), level.collect());
        let above = nodes.above(level);
        let root = above.last().map_or_else(|| nodes.get(1), |(_, root)| root);
        let app_hash = PyBytes::new(py, &app_hash(root)).unbind();
        Ok(Update { app_hash, nodes: above })
    }

    fn apply(&self, update: &Update) {
        let mut nodes = self.nodes();
        update.nodes.iter().for_each(|(node, hash)| nodes.set(*node, *hash));
    }
}
