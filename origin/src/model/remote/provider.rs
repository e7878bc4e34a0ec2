//! One server of a provider: sends a request, reads the status of its answer, and asks once more where the server refuses a
//! field that it doesn't know, or an option that only tunes the answer.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Uri,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE},
};
use parking_lot::Mutex;
use secrecy::ExposeSecret;
use tokio::time::{Instant, timeout_at};

use super::{
    connections::{self, Body, Connections, Response},
    failure,
    request::{self, Request, Variant},
    setup::Server,
};
use crate::{
    config::{address::BaseUrl, model::Protocol},
    model::ModelError,
    prompt::Options,
};

/// The most of a refusal's body that is read, bytes, and the time for it. What it says comes first.
const REFUSAL_BYTES: usize = 64 * 1024;
const REFUSAL_TIME: Duration = Duration::from_secs(5);

/// Fields of a request that some servers refuse.
const FIELDS: [&str; 3] = ["stream_options", "max_completion_tokens", "max_tokens"];

/// A provider's server.
pub(super) struct Provider {
    server: Server,
    connections: Connections,
    /// Where requests go; the second one is tried where the first one is not known.
    paths: (Uri, Option<Uri>),
    /// What it has been found to want.
    variant: Mutex<Variant>,
}

/// A request that got no answer, and what of it is for the log.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) error: ModelError,
    /// The provider's names for it: identifiers.
    pub(super) names: String,
    /// Its own words. They may repeat the prompt.
    pub(super) words: String,
    /// What broke a connection.
    pub(super) cause: String,
}

impl Provider {
    /// The server, for the model with this name.
    ///
    /// # Errors
    /// TLS can't be set up, or the model's name is no part of a path.
    pub(super) fn new(server: Server, model: &str) -> Result<Self, String> {
        let connections = Connections::new(&server.base)?;
        let path = request::path(server.protocol, model);
        let uri = |base: BaseUrl| {
            let url = base.join(&path, request::query(server.protocol));
            url.parse::<Uri>().map_err(|_| "its address and the model's name make no path".to_owned())
        };
        let bases =
            if server.protocol == Protocol::OpenAi { server.base.with_version() } else { (server.base.clone(), None) };
        let paths = (uri(bases.0)?, bases.1.map(uri).transpose()?);
        let variant = Variant { completion_tokens: server.is_openai, ..Variant::default() };
        Ok(Self { server, connections, paths, variant: Mutex::new(variant) })
    }

    /// Of the options that are given, those that the protocol has no word for, or that the server has refused.
    pub(super) fn ignored(&self, options: &Options) -> Vec<&'static str> {
        let refused = self.variant.lock().refused & request::given(options);
        let names = request::TUNING.iter().enumerate().filter(|(index, _)| refused >> index & 1 == 1);
        let names = names.map(|(_, (name, _))| *name);
        request::ignored(self.server.protocol, options).into_iter().chain(names).collect()
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// Sends a request. Returns the body of its answer when the head is there, and says that an answer follows.
    ///
    /// # Errors
    /// The server can't be reached, or refuses.
    pub(super) async fn ask(&self, request: &Request) -> Result<Body, Refusal> {
        let first = *self.variant.lock();
        // Without these options the request is sent, but the next one has them again.
        let mut once = 0;
        let mut variant = first;
        loop {
            let response = self.send(request, variant).await?;
            if response.head.status.is_success() {
                match Self::unfit(&response) {
                    // Some servers answer a path that they don't know with their web page.
                    Some(Unfit::Html) if self.has_other_path(variant) => {
                        variant.other_path = true;
                        continue;
                    }
                    Some(unfit) => return Err(self.misconfigured(&unfit.to_string())),
                    None => {}
                }
                *self.variant.lock() = Variant { refused: variant.refused & !once, ..variant };
                return Ok(response.body);
            }
            let (status, headers) = (response.head.status, response.head.headers);
            let body = refusal_body(response.body).await;
            match self.another(status, &body, first, variant, request) {
                Some(other) => {
                    let unfit = request::unfit_values(&request.options, |value| failure::names_field(&body, value));
                    once |= other.refused & !variant.refused & unfit;
                    variant = other;
                }
                None => return Err(self.refusal(status, &headers, &body, request)),
            }
        }
    }

    async fn send(&self, request: &Request, variant: Variant) -> Result<Response, Refusal> {
        let protocol = self.server.protocol;
        let body = if request::given(&request.options) & variant.refused == 0 {
            request::body(protocol, request, variant)
        } else {
            let options = request::without(&request.options, variant.refused);
            request::body(protocol, &Request { options, ..request.clone() }, variant)
        };
        let path = if variant.other_path { self.paths.1.as_ref() } else { None }.unwrap_or(&self.paths.0);
        let mut sent = http::Request::new(Bytes::from(body));
        *sent.method_mut() = Method::POST;
        *sent.uri_mut() = path.clone();
        let headers = sent.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // A compressor holds tokens until its block is full.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        for (name, value) in request::headers(protocol) {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if let Some(key) = &self.server.key {
            let (name, before) = request::key_header(protocol);
            // Set-up has looked at the key's characters.
            if let Ok(mut value) = HeaderValue::try_from(format!("{before}{}", key.expose_secret())) {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
        self.connections.send(sent).await.map_err(|failure| Refusal::connection(&failure, self.server.settings.address))
    }

    /// What to try once more after this refusal, if there is something.
    fn another(
        &self,
        status: StatusCode,
        body: &[u8],
        first: Variant,
        variant: Variant,
        request: &Request,
    ) -> Option<Variant> {
        if matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
            // One that knows no such model knows the path.
            let other = self.has_other_path(variant) && !failure::names_field(body, "model");
            return other.then_some(Variant { other_path: true, ..variant });
        }
        let refused = matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY);
        if !refused || failure::is_too_long(body) {
            return None;
        }
        // Some name all fields at once that they refuse, some one after the other.
        let (mut other, given, own) = (variant, request::given(&request.options), request.option_words());
        for (index, (_, words)) in request::TUNING.iter().enumerate() {
            if words.iter().any(|word| failure::names_field(body, word) && !own.contains(word)) {
                other.refused |= given & 1 << index;
            }
        }
        if self.server.protocol == Protocol::OpenAi {
            other.no_stream_options |= failure::names_field(body, "stream_options");
            let limit = if variant.completion_tokens { "max_completion_tokens" } else { "max_tokens" };
            let renamed = variant.completion_tokens != first.completion_tokens;
            other.completion_tokens ^= !renamed && failure::names_field(body, limit);
        }
        (other != variant).then_some(other)
    }

    fn has_other_path(&self, variant: Variant) -> bool {
        self.paths.1.is_some() && !variant.other_path
    }

    fn refusal(&self, status: StatusCode, headers: &HeaderMap, body: &[u8], request: &Request) -> Refusal {
        let asked = request.words().to_lowercase();
        let failure::Failure { error, names } =
            failure::of_status(status, headers, body, &self.server.settings, &asked);
        let refuses = |field: &str| failure::names_field(body, field) && !asked.contains(field);
        let error = match error {
            ModelError::BadRequest(..) => match FIELDS.iter().find(|field| refuses(field)) {
                Some(field) => ModelError::Misconfigured(format!(
                    "{status}: it refuses the field {field}; look at --max-tokens and --model"
                )),
                None => error,
            },
            error => error,
        };
        Refusal { names, words: String::from_utf8_lossy(body).into_owned(), ..Refusal::new(error) }
    }

    /// Why an answer with a good status is none, where its head tells.
    fn unfit(response: &Response) -> Option<Unfit> {
        let header = |name| {
            let value = response.head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
            value.trim().to_ascii_lowercase()
        };
        if !matches!(&*header(CONTENT_ENCODING), "" | "identity" | "none") {
            Some(Unfit::Compressed)
        } else if header(CONTENT_TYPE).starts_with("text/html") {
            Some(Unfit::Html)
        } else {
            None
        }
    }

    fn misconfigured(&self, what: &str) -> Refusal {
        let address = self.server.settings.address;
        Refusal::new(ModelError::Misconfigured(format!("{what}; look at {address}")))
    }
}

/// Why an answer is none.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("it is compressed, which wasn't asked for")]
    Compressed,
    #[error("it is an HTML page")]
    Html,
}

impl Refusal {
    pub(super) fn new(error: ModelError) -> Self {
        Self { error, names: String::new(), words: String::new(), cause: String::new() }
    }

    /// A connection that couldn't be made, or broke before an answer.
    fn connection(failure: &connections::Failure, address: &str) -> Self {
        let what = match failure {
            connections::Failure::Unreachable(_) => format!("its server can't be reached; look at {address}"),
            connections::Failure::Broke(_) => "the connection broke before an answer".into(),
        };
        Self { cause: failure.to_string(), ..Self::new(ModelError::BadAnswer(what)) }
    }

    /// A connection that broke within an answer.
    pub(super) fn broken(failure: &connections::Failure) -> Self {
        Self { cause: failure.to_string(), ..Self::new(ModelError::BrokeOff("the connection broke".into())) }
    }
}

/// The body of a refusal, as far as it is read.
async fn refusal_body(mut rest: Body) -> Vec<u8> {
    let (mut body, deadline) = (Vec::new(), Instant::now() + REFUSAL_TIME);
    while let Ok(Ok(Some(bytes))) = timeout_at(deadline, rest.chunk()).await {
        body.extend_from_slice(&bytes);
        if body.len() >= REFUSAL_BYTES {
            body.truncate(REFUSAL_BYTES);
            return body;
        }
    }
    rest.finish();
    body
}
