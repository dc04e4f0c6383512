//! The one outbound HTTP client: deadlines, size caps, roots.
