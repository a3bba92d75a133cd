//! The store's tree, complete and in memory: node 1 is the root, node i has children 2i and 2i + 1; and what each bucket
//! lists.
//!
//! Nodes and listings lie in pages that copies share until one of them writes there: a copy is 1280 pointers.

use crate::buckets::{
    bucket, bucket_of, changes_of, check_key, entries_of, inner, leaf_of, list, listed, merged, sha256, Bucket, Hash,
    Leaves, LISTED,
};
use crate::undo;
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const LEAVES: usize = 2 << Bucket::BITS;
const BUCKETS: usize = 1 << Bucket::BITS;
const PAGE: usize = 256;
const STORE_NAME: &[u8] = b"ledger";

/// A list in pages.
#[derive(Clone)]
struct Pages<T>(Vec<Arc<[T; PAGE]>>);

impl<T: Clone> Pages<T> {
    fn filled(count: usize, empty: [T; PAGE]) -> Self {
        let page = Arc::new(empty);
        Self(vec![page; count / PAGE])
    }

    fn get(&self, index: usize) -> &T {
        &self.0[index / PAGE][index % PAGE]
    }

    fn set(&mut self, index: usize, item: T) {
        Arc::make_mut(&mut self.0[index / PAGE])[index % PAGE] = item;
    }
}

type Nodes = Pages<Hash>;

impl Nodes {
    fn over(leaves: &[Hash]) -> Self {
        let mut nodes = Self::filled(2 * LEAVES, [[0; 32]; PAGE]);
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

/// What a bucket lists; nothing of one that is empty.
type Listing = Option<Arc<[u8]>>;

/// None for a listing without entries.
fn kept(listing: Vec<u8>) -> Listing {
    (listing.len() > 1).then(|| listing.into())
}

/// Which leaf of the tree a bucket's first one is.
fn first_leaf(bucket: Bucket) -> usize {
    LEAVES + 2 * usize::from(bucket)
}

fn app_hash(root: &Hash) -> Hash {
    leaf_of(STORE_NAME, &sha256(&[root]))
}

#[derive(Clone)]
struct State {
    nodes: Nodes,
    listings: Pages<Listing>,
}

impl State {
    /// All nodes that change when these buckets' leaves do.
    fn above(&self, changed: impl Iterator<Item = (Bucket, Leaves)>) -> Vec<(usize, Hash)> {
        let pair =
            |(bucket, [left, right]): (Bucket, Leaves)| [(first_leaf(bucket), left), (first_leaf(bucket) + 1, right)];
        self.nodes.above(changed.flat_map(pair).collect())
    }

    fn leaves(&self, bucket: Bucket) -> Leaves {
        [0, 1].map(|side| *self.nodes.get(first_leaf(bucket) + side))
    }
}

/// What a block changes. See `_core.pyi`.
#[pyclass(frozen, module = "hypermesh_native")]
pub struct Update {
    app_hash: Hash,
    nodes: Vec<(usize, Hash)>,
    listings: Vec<(Bucket, Listing)>,
    before: Vec<(Bucket, Leaves)>,
    changed: Vec<Vec<u8>>,
}

#[pymethods]
impl Update {
    #[getter]
    fn app_hash<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.app_hash)
    }

    fn undo<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let py = value.py();
        let mut row = Vec::new();
        for named in &self.changed {
            let old: Option<Bound<'_, PyBytes>> = value.call1((PyBytes::new(py, &named[2..]),))?.extract()?;
            undo::put(&mut row, undo::VALUES, named, old.as_ref().map_or(&[], |old| old.as_bytes()));
        }
        for (bucket, leaves) in &self.before {
            undo::put(&mut row, undo::LEAVES, &bucket.to_be_bytes(), leaves.as_flattened());
        }
        Ok(PyBytes::new(py, &row))
    }
}

/// The tree. See `_core.pyi`.
///
/// Nobody makes Python's objects while it is locked: that may collect garbage, which may ask this tree.
#[pyclass(frozen, module = "hypermesh_native")]
pub struct Tree {
    state: Mutex<State>,
}

impl Tree {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listings(&self, buckets: Range<usize>) -> Vec<Listing> {
        let state = self.state();
        buckets.map(|bucket| state.listings.get(bucket).clone()).collect()
    }
}

/// What every bucket lists. See `Tree.__new__`.
fn collected(entries: &Bound<'_, PyAny>) -> PyResult<Vec<Vec<u8>>> {
    let mut listings: Vec<Vec<u8>> = vec![Vec::new(); BUCKETS];
    let mut last: Option<Bound<'_, PyBytes>> = None;
    for each in entries.try_iter()? {
        let (name, value): (Bound<'_, PyBytes>, Bound<'_, PyBytes>) = each?.extract()?;
        let key = check_key(name.as_bytes())?;
        if last.as_ref().is_some_and(|last| last.as_bytes() >= key) {
            return Err(PyValueError::new_err("entries are not in the order of their keys"));
        }
        let (listing, value_hash) = (&mut listings[usize::from(bucket_of(key))], sha256(&[value.as_bytes()]));
        listing.reserve_exact(2 + key.len() + value_hash.len());
        if listing.is_empty() {
            listing.push(LISTED);
        }
        list(listing, key, &value_hash);
        last = Some(name);
    }
    Ok(listings)
}

#[pymethods]
impl Tree {
    #[new]
    fn new(py: Python<'_>, entries: &Bound<'_, PyAny>) -> PyResult<Self> {
        let collected = collected(entries)?;
        let state = py.detach(|| {
            let mut leaves: Vec<Hash> = Vec::with_capacity(LEAVES);
            let mut listings = Pages::filled(BUCKETS, [const { None }; PAGE]);
            for (bucket, listing) in (0..=Bucket::MAX).zip(collected) {
                leaves.extend(listed(bucket, entries_of(&listing)).1);
                listings.set(bucket.into(), kept(listing));
            }
            State { nodes: Nodes::over(&leaves), listings }
        });
        Ok(Self { state: Mutex::new(state) })
    }

    fn copy(&self) -> Self {
        Self { state: Mutex::new(self.state().clone()) }
    }

    #[getter]
    fn app_hash<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let root = *self.state().nodes.get(1);
        PyBytes::new(py, &app_hash(&root))
    }

    #[pyo3(signature = (index, parts = LEAVES))]
    fn aunts<'py>(&self, py: Python<'py>, index: usize, parts: usize) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        if !parts.is_power_of_two() || parts > LEAVES || index >= parts {
            return Err(PyIndexError::new_err(format!("no part {index} of {parts} in a tree of {LEAVES} leaves")));
        }
        let way = std::iter::successors(Some(parts + index), |node| Some(node / 2)).take_while(|node| *node > 1);
        let aunts: Vec<Hash> = {
            let state = self.state();
            way.map(|node| *state.nodes.get(node ^ 1)).collect()
        };
        Ok(aunts.iter().map(|hash| PyBytes::new(py, hash)).collect())
    }

    fn entries<'py>(
        &self,
        py: Python<'py>,
        bucket: &[u8],
    ) -> PyResult<Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>> {
        let bucket = usize::from(self::bucket(bucket)?);
        let listing = self.listings(bucket..bucket + 1).pop().flatten();
        let entries = entries_of(listing.as_deref().unwrap_or_default());
        Ok(entries.map(|(key, hashed)| (PyBytes::new(py, key), PyBytes::new(py, &hashed))).collect())
    }

    fn names<'py>(&self, py: Python<'py>, first: usize, after: usize) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        if first > after || after > BUCKETS {
            return Err(PyIndexError::new_err(format!("no buckets from {first} to {after}")));
        }
        let listings = self.listings(first..after);
        Ok(listings.iter().flatten().flat_map(|each| entries_of(each)).map(|(key, _)| PyBytes::new(py, key)).collect())
    }

    fn update(&self, writes: &Bound<'_, PyDict>) -> PyResult<Update> {
        let changes = changes_of(writes)?;
        let state = self.state();
        let (mut listings, mut before, mut changed) = (Vec::new(), Vec::new(), Vec::new());
        let mut leaves: Vec<(Bucket, Leaves)> = Vec::with_capacity(changes.len());
        for (&bucket, changes) in &changes {
            let held: Vec<_> = entries_of(state.listings.get(bucket.into()).as_deref().unwrap_or_default()).collect();
            let after = merged(&held, changes);
            if held == after {
                continue;
            }
            let (listing, pair) = listed(bucket, after);
            leaves.push((bucket, pair));
            listings.push((bucket, kept(listing)));
            before.push((bucket, state.leaves(bucket)));
            changed.extend(changes.keys().map(|key| [&bucket.to_be_bytes(), key.as_slice()].concat()));
        }
        let nodes = state.above(leaves.into_iter());
        let root = nodes.last().map_or_else(|| state.nodes.get(1), |(_, root)| root);
        Ok(Update { app_hash: app_hash(root), nodes, listings, before, changed })
    }

    fn apply(&self, update: &Update) {
        let mut state = self.state();
        update.nodes.iter().for_each(|(node, hash)| state.nodes.set(*node, *hash));
        update.listings.iter().for_each(|(bucket, listing)| state.listings.set((*bucket).into(), listing.clone()));
    }

    fn set_back(&self, leaves: &Bound<'_, PyDict>) -> PyResult<()> {
        let mut changed: BTreeMap<Bucket, Leaves> = BTreeMap::new();
        for (name, pair) in leaves {
            changed.insert(bucket(name.extract()?)?, leaves_of(pair.extract()?)?);
        }
        let mut state = self.state();
        let nodes = state.above(changed.into_iter());
        nodes.iter().for_each(|(node, hash)| state.nodes.set(*node, *hash));
        Ok(())
    }
}

fn leaves_of(pair: &[u8]) -> PyResult<Leaves> {
    match pair.as_chunks() {
        (&[left, right], []) => Ok([left, right]),
        _ => Err(PyValueError::new_err(format!("leaves of {} bytes instead of 64", pair.len()))),
    }
}
