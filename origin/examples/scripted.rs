//! The origin with a scripted model, as a program: for tests and benchmarks that need to know what the model says.

use std::{process::ExitCode, sync::Arc};

use headwater_origin::app;
use headwater_origin_testing::Scripted;

fn main() -> ExitCode {
    app::main(|_| Ok(vec![Arc::new(Scripted)]))
}
