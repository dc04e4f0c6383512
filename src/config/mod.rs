//! `proxy.toml` to the settings of each module; all mistakes at once.
