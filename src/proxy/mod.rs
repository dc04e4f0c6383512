//! One connection, from the street to the application.
//!
//! A visitor's connection passes these files in order, all on one worker's thread. Nothing here waits for the
//! store, a CA, DNS or the control plane: what is not in memory is asked for by a bounded message with a deadline
//! ([`crate::certs::on_demand`]).
//!
//! 1. [`settings`], [`limits`]: what the operator decides.
//! 2. [`listener`]: sockets, bound before anything is served. [`running`]: all workers, started and drained.
//!    [`worker`]: one of them. `accept`: its loop.
//! 3. [`admission`]: places, taken or refused at once. [`street`]: the TCP stream, which holds them.
//!    [`proxy_protocol`]: who visits, where a proxy in front tells.
//! 4. [`client_hello`], [`handshake`], [`tls`], [`tickets`]: from the first bytes to TLS; `challenge`: to a CA's proof. [`report`]: how it ended
//!    and which alert says so.
//! 5. `connection`: HTTP over TLS, which is `resting` while nothing comes; [`drive`] runs it under [`pulse`]'s
//!    deadlines and [`drain`]; [`watched`] and [`frames`] watch what passes; [`counted`] keeps a request open until
//!    its answer is handed over, and [`sending`] tells whether the visitor takes it. `http`: port 80.
//! 6. [`facts`]: what a request knows of its connection. [`request`]: one request, in named steps: [`guard`] (what is
//!    no request), [`authority`] (whom it is for), [`route`] (where it goes), [`headers`] and [`forwarded`] (what it
//!    says on its way), [`upstream`] (a connection), `exchange` (there and back), `download` (the content) or
//!    `upgrade` (a tunnel), [`response`]; `access` adds up what happened, and [`fault`] names what went wrong.

pub mod settings;

pub mod limits;

pub mod listener;

pub mod running;

pub mod worker;

mod accept;

pub mod admission;

pub mod street;

pub mod proxy_protocol;

pub mod client_hello;

pub mod handshake;

mod challenge;

pub mod tls;

pub mod tickets;

pub mod report;

mod connection;

pub mod drive;

mod resting;

pub mod pulse;

pub mod sending;

pub mod watched;

pub mod frames;

pub mod counted;

pub mod drain;

mod http;

pub mod facts;

pub mod request;

pub mod guard;

pub mod authority;

pub mod route;

pub mod headers;

pub mod forwarded;

pub mod upstream;

mod exchange;

mod download;

mod upgrade;

pub mod response;

mod access;

pub mod fault;

#[cfg(test)]
mod tests;
