//! Keys at rest: the key-encryption key, data keys, seal and open.
