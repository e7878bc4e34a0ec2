//! The edge's secret: who may call.

use std::{env, ffi::OsString, sync::Arc};

use axum::{
    extract::{Request, State},
    http::header,
    middleware::Next,
    response::Response,
};
use headwater_protocol::Problem;
use secrecy::{ExposeSecret, SecretString};
use subtle::{Choice, ConstantTimeEq};

use super::{problem::ProblemResponse, router::App};

/// The shortest secret, bytes.
const MIN_SECRET: usize = 16;

/// The secrets that the edge may send.
#[derive(Clone, Debug)]
pub struct Secrets(Vec<SecretString>);

/// A secret that can't be used. The message names its variable and repeats nothing of it.
#[derive(Debug, thiserror::Error)]
pub enum UnfitSecret {
    /// There is none, or it can be guessed.
    #[error(
        "{0} is missing or shorter than {MIN_SECRET} bytes; set it to the secret that the edge sends, such as the output of `openssl rand -hex 32`"
    )]
    Short(&'static str),
    /// It has characters that the edge can't send in a header.
    #[error("{0} has characters that no header can carry; use ASCII, such as the output of `openssl rand -hex 32`")]
    Unsendable(&'static str),
}

impl Secrets {
    /// The secrets of `EDGE_SECRET` and, where there is one, `EDGE_SECRET_PREVIOUS`.
    ///
    /// # Errors
    /// The first is missing, or one can't be used.
    pub fn from_env() -> Result<Self, UnfitSecret> {
        const PREVIOUS: &str = "EDGE_SECRET_PREVIOUS";
        let current = secret("EDGE_SECRET", env::var_os("EDGE_SECRET").unwrap_or_default())?;
        let previous = env::var_os(PREVIOUS).filter(|value| !value.to_string_lossy().trim().is_empty());
        let previous = previous.map(|value| secret(PREVIOUS, value)).transpose()?;
        Ok(Self([current].into_iter().chain(previous).collect()))
    }

    /// These secrets.
    ///
    /// # Errors
    /// One can't be used.
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Result<Self, UnfitSecret> {
        secrets.into_iter().map(|text| secret("a secret", text.into())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether `token` is one of them, in a time that doesn't depend on where it differs.
    pub fn accept(&self, token: &[u8]) -> bool {
        let equal = |secret: &SecretString| secret.expose_secret().as_bytes().ct_eq(token);
        self.0.iter().map(equal).fold(Choice::from(0), |any, one| any | one).into()
    }
}

/// Refuses requests without one of the secrets.
pub(super) async fn authorise(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, ProblemResponse> {
    let token =
        request.headers().get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if token.is_some_and(|token| app.secrets.accept(token)) {
        Ok(next.run(request).await)
    } else {
        Err(Problem::unauthorised().into())
    }
}

/// A secret without the white space at its ends: files and consoles add it, and no header keeps it.
fn secret(variable: &'static str, value: OsString) -> Result<SecretString, UnfitSecret> {
    let text = value.into_string().map_err(|_| UnfitSecret::Unsendable(variable))?;
    match text.trim() {
        text if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) => Err(UnfitSecret::Unsendable(variable)),
        text if text.len() < MIN_SECRET => Err(UnfitSecret::Short(variable)),
        text => Ok(text.into()),
    }
}
