//! Intermediate certificates kept once: thousands of chains end in the same few.
//!
//! rustls' certificates cannot share an allocation, but they can borrow for ever. So the first of a kind is leaked and
//! the others borrow it. What is leaked is bounded; beyond the bound a chain keeps a copy of its own.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls_pki_types::CertificateDer;

/// Intermediates kept for ever; a CA has a handful, and replaces them every few years.
const MOST: usize = 256;
/// Bytes kept for ever.
const MOST_BYTES: usize = 1024 * 1024;

/// What is leaked is the process's, so there is one place that knows of it.
static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

#[derive(Default)]
struct Kept {
    all: HashSet<&'static [u8]>,
    bytes: usize,
}

/// The certificate, shared with all others of the same bytes where the bound allows it.
#[must_use]
pub fn intern(der: Vec<u8>) -> CertificateDer<'static> {
    let mut kept = lock();
    let kept = kept.get_or_insert_default();
    if let Some(same) = kept.all.get(&*der) {
        return CertificateDer::from(*same);
    }
    if kept.all.len() >= MOST || kept.bytes + der.len() > MOST_BYTES {
        return CertificateDer::from(der);
    }
    kept.bytes += der.len();
    let leaked: &'static [u8] = der.leak();
    kept.all.insert(leaked);
    CertificateDer::from(leaked)
}

/// Whether these very bytes are the shared ones.
#[must_use]
pub fn is_shared(der: &CertificateDer<'_>) -> bool {
    let kept = lock();
    let same = kept.as_ref().and_then(|kept| kept.all.get(&**der));
    same.is_some_and(|same| std::ptr::eq(same.as_ptr(), der.as_ptr()))
}

fn lock() -> MutexGuard<'static, Option<Kept>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_are_kept_once_and_the_bound_holds() {
        let (first, second) = (intern(b"one".to_vec()), intern(b"one".to_vec()));
        assert!(std::ptr::eq(first.as_ptr(), second.as_ptr()) && is_shared(&first));
        assert!(!is_shared(&CertificateDer::from(b"one".to_vec())));
        let large = intern(vec![7; MOST_BYTES]);
        assert!(!is_shared(&large));
        for n in 0..MOST {
            assert!(!intern(format!("intermediate {n}").into_bytes()).is_empty());
        }
        let beyond = intern(b"one too many".to_vec());
        assert!(!is_shared(&beyond));
        assert_eq!(&*beyond, b"one too many");
        assert!(is_shared(&intern(b"one".to_vec())));
    }
}
