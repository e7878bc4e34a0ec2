//! The edge's secret: who may call.

use std::sync::Arc;

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

/// No secret, or one that can be guessed.
#[derive(Debug, thiserror::Error)]
#[error(
    "EDGE_SECRET is missing or shorter than {MIN_SECRET} bytes; set it to the secret that the edge sends, such as the output of `openssl rand -hex 32`"
)]
pub struct UnfitSecret;

impl Secrets {
    /// The secrets of `EDGE_SECRET` and, where there is one, `EDGE_SECRET_PREVIOUS`.
    ///
    /// # Errors
    /// The first is missing, or one is too short.
    pub fn from_env() -> Result<Self, UnfitSecret> {
        let previous = std::env::var("EDGE_SECRET_PREVIOUS").ok().filter(|secret| !secret.is_empty());
        let current = std::env::var("EDGE_SECRET").map_err(|_| UnfitSecret)?;
        Self::new([current].into_iter().chain(previous))
    }

    /// These secrets.
    ///
    /// # Errors
    /// One is too short.
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Result<Self, UnfitSecret> {
        let secrets: Vec<_> = secrets.into_iter().map(SecretString::from).collect();
        let long = secrets.iter().all(|secret| secret.expose_secret().len() >= MIN_SECRET);
        if long && !secrets.is_empty() { Ok(Self(secrets)) } else { Err(UnfitSecret) }
    }

    /// Whether `token` is one of them, in a time that doesn't depend on where it differs.
    pub fn accept(&self, token: &[u8]) -> bool {
        let equal = |secret: &SecretString| secret.expose_secret().as_bytes().ct_eq(token);
        self.0.iter().map(equal).fold(Choice::from(0), |any, one| any | one).into()
    }
}

/// Lets in who holds one of the secrets.
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
