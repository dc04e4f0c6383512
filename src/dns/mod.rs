//! Look-ups with the configured resolvers.
