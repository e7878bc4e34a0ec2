//! Headwater's origin: the server program.

use std::{error::Error, process::ExitCode, sync::Arc};

use headwater_origin::{config::Config, model::Model, program};

fn main() -> ExitCode {
    program::main(model)
}

/// The model that the settings name.
fn model(config: &Config) -> Result<Arc<dyn Model>, Box<dyn Error>> {
    match config.model.as_str() {
        #[cfg(feature = "embedded")]
        "embedded" => Ok(Arc::new(headwater_origin::model::embedded::Embedded::load(&config.embedded)?)),
        #[cfg(not(feature = "embedded"))]
        "embedded" => Err("this origin was built without the embedded model; build it with --features embedded".into()),
        other => Err(format!("there is no model {other:?}; --model takes: embedded").into()),
    }
}
