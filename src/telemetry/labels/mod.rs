//! Every label that a metric may carry, as a closed enum: no text from outside becomes a label.
//!
//! One file for each part of the program that counts: requests, connections, certificates, state.

/// Declares an enum that is the label of a name, with a word for each value.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident = $key:literal { $($(#[$inner:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$inner])* $variant,)* }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word for it in metrics and logs.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl Labels for $name {
            const COUNT: usize = Self::ALL.len();

            fn index(self) -> usize {
                self as usize
            }

            fn all() -> Vec<Self> {
                Self::ALL.to_vec()
            }

            fn words(self) -> Vec<(&'static str, &'static str)> {
                vec![($key, self.as_str())]
            }
        }
    };
}

mod certificate;
mod connection;
mod request;
mod state;

pub use certificate::{
    BudgetFamily, Expiry, IssuanceKind, IssuanceOutcome, JobPriority, JobState, LifetimeLeft,
    Permission, RevocationOutcome,
};
pub use connection::{
    AdmissionLimit, ChallengeAnswer, ChallengeAsked, CredentialOrigin, Handshake, HandshakeOutcome,
    HandshakeReason, Listener,
};
pub use request::{Direction, End, Protocol, RequestLimit, StatusClass, UpstreamConnection};
pub use state::{ConfigState, DataKeyState, Reload, StoreCall, StoreFailure};
