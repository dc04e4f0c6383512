//! One record for each request: who, what, how it ended, how long it took.
//!
//! A worker makes an [`AccessRecord`] and gives it to [`AccessLog::record`], which never waits and never wakes
//! anyone in the common case. No query string, no header, no cookie comes into a record by its types; whatever a
//! visitor wrote is escaped to plain ASCII.
//!
//! Reading order: [`record`], `line` (its two written forms), [`log`] (from the workers to the output).

pub mod record;

mod line;

pub mod log;

pub use log::{AccessLog, AccessLogError};
pub use record::{AccessRecord, RequestId, RequestPath, Tls, TlsVersion};
