//! What a command stands on: found, or installed and built, in lanes side by side.

use anyhow::Result;

use crate::npm::Npm;
use crate::origin::Embedded;
use crate::packages::{self, Need};
use crate::project::Project;
use crate::steps::{self, Steps};
use crate::{clients, edge, model, npm, origin, secret, tools};

/// What a command wants to find.
#[derive(Default)]
pub(crate) struct Wanted {
    /// Packages of the operating system, besides those that the builds below need
    pub(crate) packages: Vec<Need>,
    /// node_modules
    pub(crate) npm: Option<Npm>,
    /// The edge in build/, and the secret in `.dev.vars`; it needs node_modules
    pub(crate) edge: bool,
    /// The origin's release binary
    pub(crate) origin: Option<Embedded>,
    /// What tests run: the origin, the origin with a scripted model, Rust's clients
    pub(crate) for_tests: bool,
    /// Python's clients; npm's come with node_modules
    pub(crate) python: bool,
    /// The embedded model's file
    pub(crate) model: bool,
}

/// Brings all that is wanted. What is there already costs a look.
pub(crate) fn prepare(project: &Project, wanted: &Wanted) -> Result<()> {
    let steps = &Steps::begin(project)?;
    packages::install(steps, &needs(project, wanted)?)?;
    let edge = || {
        if let Some(when) = wanted.npm {
            npm::install(project, steps, when)?;
        }
        if wanted.edge {
            secret::get_or_create(project)?;
            tools::install(project, steps)?;
            edge::build(project, steps)?;
        }
        Ok(())
    };
    let origin = || {
        if let Some(embedded) = wanted.origin {
            origin::build(project, steps, embedded)?;
        }
        if wanted.for_tests { origin::build_for_tests(project, steps) } else { Ok(()) }
    };
    let fetch = || {
        if wanted.python {
            clients::install_python(project, steps)?;
        }
        if wanted.model { model::fetch(project, steps) } else { Ok(()) }
    };
    steps::side_by_side(&[&edge, &origin, &fetch])?;
    // Made by a program of the origin's.
    if wanted.model { model::make(project, steps, wanted.for_tests) } else { Ok(()) }
}

fn needs(project: &Project, wanted: &Wanted) -> Result<Vec<Need>> {
    let mut needs = wanted.packages.clone();
    if wanted.edge && !tools::has_worker_build(project)? {
        needs.push(packages::OPENSSL);
    }
    if wanted.origin == Some(Embedded::Yes) || wanted.for_tests || wanted.model {
        needs.push(packages::EMBEDDED);
    }
    if wanted.model && !model::is_fetched(project) {
        needs.push(packages::PIP);
    }
    if wanted.python && !clients::has_python(project) {
        needs.push(packages::VENV);
    }
    Ok(needs)
}
