//! The edge of Headwater: it asks an origin for a stream of text and hands the answer's body to the browser
//! without touching a byte of it.
//!
//! What decides is pure and builds natively; what talks to a runtime is thin. A second runtime is one more
//! adapter beside `cloudflare`.
//!
//! # Layout
//!
//! A module uses only modules below it. A request meets `route`, `policy`, `failover` and `upstream`, in this order; a chat's
//! meets `policy` before.
//!
//! * `cloudflare`: the Workers runtime (built for `wasm32-unknown-unknown` only).
//! * [`health`]: how the edge and its origins are.
//! * [`failover`]: which origins are asked, in which order, and what their answers are worth.
//! * [`upstream`]: the request to an origin, and the header lists of both directions.
//! * [`policy`]: who may? Cross-origin rules, rate-limit keys, the one place that answers "may this caller start?" and
//!   "may this caller chat?".
//! * [`route`]: what is asked? A request's head becomes a [`route::Call`], or a problem.
//! * [`config`]: the settings, parsed once.
//! * [`keys`]: who holds a key of this edge?
//! * [`headers`]: header lists, and the one function that copies headers.
//!
//! What the edge shares with the origin, ids, keys, variables and problems (RFC 9457), is in `headwater-protocol`.

#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
pub mod cloudflare;
pub mod config;
pub mod failover;
pub mod headers;
pub mod health;
pub mod keys;
pub mod policy;
pub mod route;
pub mod upstream;
