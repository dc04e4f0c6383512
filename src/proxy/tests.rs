//! The street side as visitors meet it: real sockets on loopback, clients that we did not write.

mod support;

mod upstreams;

mod through;

mod forwarding;

mod broken;

mod tenants;

mod streams;

mod corpus;

mod http2;

mod verified;

mod records;

mod sockets;

mod names;

mod resumption;

mod limits;

mod bounds;

mod proofs;

mod announced;

mod port80;

mod ending;
