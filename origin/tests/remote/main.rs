//! Remote models: the whole program against providers that answer by script, in each provider's protocol.

mod cases;
#[cfg(feature = "embedded")]
mod exit;
mod faults;
mod health;
mod keys;
mod process;
mod protocols;
mod provider;
mod start;
