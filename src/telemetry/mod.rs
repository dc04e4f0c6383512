//! What operators see: logs, metrics, access records.
