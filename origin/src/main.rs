//! Headwater's origin: the server program.

use std::{error::Error, process::ExitCode, sync::Arc};

use headwater_origin::{
    app::{self, Models},
    config::{Config, model::Name},
    model::{Model, remote},
};

fn main() -> ExitCode {
    app::main(models)
}

/// The models that the settings name.
fn models(config: &Config) -> Result<Models, Box<dyn Error>> {
    let variable = |name: &str| std::env::var(name).ok();
    remote::check_servers(&config.model, variable)?;
    let model = |name: &Name| -> Result<Arc<dyn Model>, Box<dyn Error>> {
        match name {
            Name::Embedded => embedded(config),
            Name::Remote(api, model) => {
                let common = remote::Common {
                    max_tokens: config.max_tokens,
                    plain_hosts: &config.allow_plain_http,
                    reasoning: config.reasoning,
                    log_variables: config.log_variables,
                };
                Ok(Arc::new(remote::Remote::new(name.to_string(), api, model, common, variable)?))
            }
        }
    };
    config.model.iter().map(model).collect()
}

#[cfg(feature = "embedded")]
fn embedded(config: &Config) -> Result<Arc<dyn Model>, Box<dyn Error>> {
    Ok(Arc::new(headwater_origin::model::embedded::Embedded::load(
        &config.embedded,
        config.max_tokens,
        config.reasoning,
    )?))
}

#[cfg(not(feature = "embedded"))]
fn embedded(_: &Config) -> Result<Arc<dyn Model>, Box<dyn Error>> {
    Err("this origin was built without the embedded model; build it with --features embedded".into())
}
