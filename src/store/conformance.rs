//! What every store must do, whatever its engine: each test takes a fresh store from a factory.
//!
//! An engine is held to it by one line, [`conforms_to_the_port`] with its factory; what only makes sense for one
//! engine (a file that is killed, a disk that is full) is tested beside that engine.

pub(crate) mod support;

pub(crate) mod life;

/// Makes a test of each named function for the stores that `$factory` makes.
macro_rules! conforms_to_the_port {
    ($factory:expr) => {
        $crate::store::conformance::conforms_to_the_port!($factory;
            life::a_domain_lives_from_registration_to_a_served_certificate,
            life::everything_is_there_after_a_restart,
        );
    };
    ($factory:expr; $($module:ident :: $test:ident,)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                $crate::store::conformance::$module::$test(&$factory).await;
            }
        )*
    };
}

pub(crate) use conforms_to_the_port;
