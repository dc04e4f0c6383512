//! The composition root: the one place that builds concrete adapters, and the order in which things start and stop.
//!
//! A start goes from the outside in: sockets are bound first, so that a port in use is told before anything is
//! touched; then the store and its keys are opened; only then does anything serve or order. A stop goes the other
//! way: visitors first, the store last.
//!
//! Reading order: [`start`] (what is built, in order) over [`holder`] (which process this is), [`ground`] and [`work`], [`serving`] (what runs), [`stop`](mod@stop) (how it ends),
//! [`reload`](mod@reload) (how it changes), `standing` (how that stands to its files), [`roots`] (what clients of a private CA trust), [`process`] (the process and its surroundings).

pub mod start;

mod holder;

mod ground;

mod work;

pub mod serving;

pub mod stop;

pub mod reload;

mod standing;

pub mod roots;

pub mod process;
