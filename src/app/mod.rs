//! The composition root: builds the concrete adapters, starts and stops them in order.
