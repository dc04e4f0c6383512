//! What callers may do and what it changes; no HTTP, no SQL.
