//! FALCON-1024 (padded, round 3) verified beside the interpreter.
//!
//!     Python: submit(ticket, checks) -- channel --> thread -- answers, one byte on a socket --> event loop: answers()
//!
//! One thread: it verifies several times what the interpreter can have executed. What is accepted is what liboqs
//! accepts, bit for bit: exact lengths, header 0x3A, one encoding of each signature, padding zero.

use fn_dsa_vrfy::{VerifyingKey, VerifyingKey1024, DOMAIN_NONE, HASH_ID_ORIGINAL_FALCON};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

const PUBLIC_BYTES: usize = 1793;
const SIGNATURE_BYTES: usize = 1280;
/// Decoded keys that are kept: 4 KiB each.
const KEPT: usize = 1024;

/// Public key, signature, message.
type Asked<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>, Bound<'py, PyBytes>);

/// One signature to verify: public key, signature, message, one after the other.
struct Check(Box<[u8]>);

impl Check {
    /// None for wrong lengths of key or signature, which no signature has.
    fn new(public: &[u8], signature: &[u8], message: &[u8]) -> Option<Self> {
        let fits = public.len() == PUBLIC_BYTES && signature.len() == SIGNATURE_BYTES;
        fits.then(|| Self([public, signature, message].concat().into()))
    }

    fn verify(&self, keys: &mut Keys) -> bool {
        let (public, rest) = self.0.split_at(PUBLIC_BYTES);
        let (signature, message) = rest.split_at(SIGNATURE_BYTES);
        keys.decoded(public).is_some_and(|key| accepts(key, signature, message))
    }
}

fn accepts(key: &VerifyingKey1024, signature: &[u8], message: &[u8]) -> bool {
    key.verify(signature, &DOMAIN_NONE, &HASH_ID_ORIGINAL_FALCON, message)
}

/// Decoded keys by their bytes, those used last.
#[derive(Default)]
struct Keys {
    known: HashMap<Box<[u8]>, (u64, VerifyingKey1024)>,
    clock: u64,
}

impl Keys {
    /// None for bytes that are no key.
    fn decoded(&mut self, public: &[u8]) -> Option<&VerifyingKey1024> {
        self.clock += 1;
        if !self.known.contains_key(public) {
            let key = VerifyingKey1024::decode(public)?;
            if self.known.len() >= KEPT {
                self.drop_half();
            }
            self.known.insert(public.into(), (self.clock, key));
        }
        let (used, key) = self.known.get_mut(public)?;
        *used = self.clock;
        Some(key)
    }

    /// The half that was used longest ago.
    fn drop_half(&mut self) {
        let mut used: Vec<u64> = self.known.values().map(|(used, _)| *used).collect();
        let middle = used.len() / 2;
        let (_, &mut oldest_kept, _) = used.select_nth_unstable(middle);
        self.known.retain(|_, (used, _)| *used >= oldest_kept);
    }
}

struct Job {
    ticket: u64,
    checks: Vec<Option<Check>>,
}

/// One byte a check, 1 for good; no bytes when the thread could not tell (a defect in the verification).
type Answer = (u64, Vec<u8>);

/// The thread; ends when the sender of its jobs is dropped.
fn serve(jobs: &Receiver<Job>, answers: &Mutex<Vec<Answer>>, mut bell: &UnixStream) {
    let mut keys = Keys::default();
    for job in jobs {
        let judge = |check: &Option<Check>| u8::from(check.as_ref().is_some_and(|check| check.verify(&mut keys)));
        let judged = catch_unwind(AssertUnwindSafe(|| job.checks.iter().map(judge).collect()));
        let mut waiting = locked(answers);
        waiting.push((job.ticket, judged.unwrap_or_default()));
        if waiting.len() == 1 {
            // Full or closed: then somebody has enough to read already, or nobody reads any more.
            let _ = bell.write(&[1]);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Verifies in a thread of its own. See `_core.pyi`.
#[pyclass(frozen, module = "hypermesh_native")]
pub struct Signatures {
    jobs: Mutex<Option<(Sender<Job>, JoinHandle<()>)>>,
    answers: Arc<Mutex<Vec<Answer>>>,
    bell: UnixStream,
}

#[pymethods]
impl Signatures {
    #[new]
    fn new() -> PyResult<Self> {
        let (bell, rung) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        rung.set_nonblocking(true)?;
        let (sender, receiver) = channel();
        let answers = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&answers);
        let thread =
            std::thread::Builder::new().name("signatures".into()).spawn(move || serve(&receiver, &shared, &rung))?;
        Ok(Self { jobs: Mutex::new(Some((sender, thread))), answers, bell })
    }

    fn fileno(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    fn submit(&self, ticket: u64, checks: Vec<Asked<'_>>) -> PyResult<()> {
        let copied = |(public, signature, message): &Asked<'_>| {
            Check::new(public.as_bytes(), signature.as_bytes(), message.as_bytes())
        };
        let checks = checks.iter().map(copied).collect();
        let jobs = locked(&self.jobs);
        let sent = jobs.as_ref().map(|(sender, _)| sender.send(Job { ticket, checks }));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(PyRuntimeError::new_err("these signatures were closed")),
        }
    }

    fn answers<'py>(&self, py: Python<'py>) -> PyResult<Vec<(u64, Bound<'py, PyBytes>)>> {
        // First the bell, then the answers: one that comes in between is taken now, and rings for nothing.
        match (&self.bell).read(&mut [0; 64]) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error.into()),
            _ => {}
        }
        let taken = std::mem::take(&mut *locked(&self.answers));
        Ok(taken.into_iter().map(|(ticket, answer)| (ticket, PyBytes::new(py, &answer))).collect())
    }

    fn close(&self, py: Python<'_>) {
        let open = locked(&self.jobs).take();
        if let Some((sender, thread)) = open {
            drop(sender);
            py.detach(|| thread.join().ok());
        }
    }
}

/// One signature, here and now.
#[pyfunction]
pub fn verify(py: Python<'_>, public: &[u8], signature: &[u8], message: &[u8]) -> bool {
    let check = Check::new(public, signature, message);
    py.detach(|| check.is_some_and(|check| check.verify(&mut Keys::default())))
}
