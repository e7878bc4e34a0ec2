//! What a provider's failure means: a status and its body, or an error within a stream. Providers spell errors in many
//! ways, so the file is long; docs/PROVIDERS.md has them with their sources.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use memchr::memmem;
use serde_json::Value;

use crate::model::ModelError;

/// The longest wait that is passed on; nobody waits longer.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// OpenAI's own, and Azure's.
const RETRY_AFTER_MS: &str = "retry-after-ms";

/// Parts of the names that errors have, in lower case, and of the sentences where there is no name.
const TOO_LONG: [&str; 5] = [
    "context_length_exceeded",
    "context_window_exceeded",
    "exceed_context_size",
    "string_above_max_length",
    "request_too_large",
];
const TOO_LONG_SENTENCES: [&str; 20] = [
    "prompt is too long",
    "prompt too long",
    "maximum context length",
    "maximum model length",
    "model's context length",
    "the context length",
    "available context size",
    "max context size",
    "context size has been exceeded",
    "exceed context limit",
    "context window exceeds",
    "input token count",
    "maximum prompt length",
    "input is too long",
    "input too long",
    "too many tokens in",
    "tokens in request more than max",
    "exceeded model token limit",
    "max_new_tokens` must be",
    "request too large",
];
const NO_CREDIT: [&str; 6] = [
    "insufficient_quota",
    "billing",
    "insufficient_balance",
    "insufficient_credits",
    "exceeded_current_quota",
    "payment",
];
const WRONG_KEY: [&str; 5] =
    ["api_key_invalid", "invalid_api_key", "authentication", "unauthenticated", "invalid_authentication"];
const NO_MODEL: [&str; 6] = [
    "model_not_found",
    "invalid_model",
    "model_decommissioned",
    "model_not_supported",
    "model_not_available",
    "deploymentnotfound",
];
const NO_MODEL_SENTENCES: [&str; 5] =
    ["try pulling it first", "is not a valid model id", "no endpoints found", "unknown model", "invalid model"];
const MODERATED: [&str; 7] = [
    "content_filter",
    "content_policy",
    "moderation",
    "responsibleai",
    "data_inspection_failed",
    "sensitive_content",
    "cyber_policy",
];

/// The settings that a failure may be the fault of, as the operator knows them.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Where the key is set; `None` where none is sent.
    pub(super) key: Option<&'static str>,
    /// Where the address is set.
    pub(super) address: &'static str,
}

/// A failure, and what the provider calls it: words for the log.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: ModelError,
    /// The error's type and code: identifiers, no sentence.
    pub(super) names: String,
}

/// The failure that a status other than 200 tells, with its body. A sentence may repeat what was `asked`, in lower case: words
/// that stand there too don't blame the settings.
pub(super) fn of_status(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    settings: &Settings,
    asked: &str,
) -> Failure {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = Error { asked, ..Error::find(&value) };
    let wait = wait_of(headers).or_else(|| error.wait());
    let error_of = error.meaning(Some(status), wait, settings);
    Failure { error: error_of, names: error.names_for_the_log() }
}

/// The failure that a value within a stream tells, or what stands there instead of one.
pub(super) fn in_stream(body: &[u8], settings: &Settings) -> Failure {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = Error::find(&value);
    Failure { error: error.meaning(None, error.wait(), settings), names: error.names_for_the_log() }
}

/// An error in a body, whichever form it has.
struct Error<'a> {
    /// The objects in which it may be told: the innermost first.
    objects: Vec<&'a Value>,
    /// Its sentence.
    message: &'a str,
    /// What the sentence may repeat, in lower case.
    asked: &'a str,
}

impl<'a> Error<'a> {
    fn find(body: &'a Value) -> Self {
        // Gemini puts it into an array where a stream was asked for as one.
        let body = body.as_array().and_then(|array| array.first()).unwrap_or(body);
        let choice =
            body.pointer("/choices/0").filter(|choice| choice.get("error").is_some_and(|error| !error.is_null()));
        let mut objects = vec![body];
        let mut inner = choice.or(Some(body)).filter(|inner| inner.is_object());
        let mut message = "";
        while let Some(object) = inner {
            inner = ["error", "errors", "detail", "innererror", "response"].iter().find_map(|name| {
                let member = object.get(name).filter(|member| !member.is_null())?;
                let member = member.as_array().and_then(|array| array.first()).unwrap_or(member);
                Some(member).filter(|member| member.is_object() || member.is_string())
            });
            match inner {
                Some(Value::String(text)) => {
                    message = text;
                    inner = None;
                }
                Some(object) => objects.insert(0, object),
                None => {}
            }
        }
        let told = ["message", "error_message", "error_msg", "msg", "detail", "title"];
        let sentence = objects.iter().find_map(|object| told.iter().find_map(|name| object.get(name)?.as_str()));
        Self { message: sentence.unwrap_or(message), objects, asked: "" }
    }

    /// google.rpc.Status: what there is to tell beside the sentence.
    fn details(&self) -> impl Iterator<Item = &'a Value> + '_ {
        self.objects.iter().filter_map(|object| object.get("details")?.as_array()).flatten()
    }

    /// Its identifiers: types, codes, reasons.
    fn names(&self) -> impl Iterator<Item = &'a str> + '_ {
        const MEMBERS: [&str; 6] = ["type", "code", "status", "error_code", "reason", "error_type"];
        let objects = self.objects.iter().copied().chain(self.details());
        objects.flat_map(|object| MEMBERS.iter().filter_map(|name| object.get(name)?.as_str()))
    }

    fn is_named(&self, parts: &[&str]) -> bool {
        self.names().any(|name| {
            let name = name.to_ascii_lowercase();
            parts.iter().any(|part| name.contains(part))
        })
    }

    fn says(&self, parts: &[&str]) -> bool {
        let message = self.message.to_ascii_lowercase();
        parts.iter().any(|part| message.contains(part))
    }

    /// The same, of what would be the fault of the settings, and so everybody's: what whoever asks has written proves nothing.
    fn blames(&self, parts: &[&str]) -> bool {
        self.says(&parts.iter().copied().filter(|part| !self.asked.contains(part)).collect::<Vec<_>>())
    }

    /// The number of a status, where it has one.
    fn number(&self) -> Option<StatusCode> {
        let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
        let members = ["code", "status", "error_code", "status_code", "statusCode"];
        let found = self.objects.iter().find_map(|object| members.iter().find_map(|name| number(object.get(name)?)));
        found.and_then(|number| StatusCode::from_u16(u16::try_from(number).ok()?).ok())
    }

    /// google.rpc.RetryInfo, and the member that some gateways have.
    fn wait(&self) -> Option<Duration> {
        let google = self.details().find_map(|detail| seconds(detail.get("retryDelay")?.as_str()?.strip_suffix('s')?));
        google.or_else(|| {
            let members = ["retry_after", "retry_after_seconds", "resets_in_seconds", "estimated_time"];
            self.objects
                .iter()
                .find_map(|object| members.iter().find_map(|name| seconds(&object.get(name)?.as_f64()?.to_string())))
        })
    }

    /// Identifiers alone, because a sentence may repeat the prompt.
    fn names_for_the_log(&self) -> String {
        /// Longer ones are no identifiers.
        const LONGEST: usize = 64;
        let identifier = |name: &&str| name.len() <= LONGEST && is_identifier(name);
        let mut names: Vec<&str> = Vec::new();
        for name in self.names().filter(identifier) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let number = self.number().map(|number| number.as_str().to_owned());
        names.into_iter().map(str::to_owned).chain(number).collect::<Vec<_>>().join(" ")
    }

    fn meaning(&self, status: Option<StatusCode>, wait: Option<Duration>, settings: &Settings) -> ModelError {
        let told = status.or_else(|| self.number()).map_or(0, |status| status.as_u16());
        let what = if told == 0 { "it told of an error".to_owned() } else { format!("status {told}") };
        let address = settings.address;
        let key = settings.key.unwrap_or(address);
        let account =
            || ModelError::Misconfigured(format!("{what}: the account has no credit; look at the key in {key}"));
        let wrong_key = || {
            let why =
                if settings.key.is_some() { "the key isn't accepted" } else { "a key is wanted, and none is sent" };
            ModelError::Misconfigured(format!("{what}: {why}; look at {key}"))
        };
        let model = || ModelError::Misconfigured(format!("{what}: no such model; look at --model and at {address}"));
        let server = || ModelError::Misconfigured(format!("{what}: no such path; look at {address}"));

        // What is named comes before a number: Gemini has 400 for a wrong key, OpenAI 429 for an account without credit.
        if self.is_too_long() || matches!(told, 413 | 414) {
            return ModelError::TooLong(what);
        }
        if self.is_named(&NO_CREDIT) || self.blames(&["credit balance is too low", "insufficient balance"]) {
            return account();
        }
        if self.is_named(&WRONG_KEY) || self.blames(&["api key not valid", "incorrect api key", "invalid api key"]) {
            return wrong_key();
        }
        if self.is_moderated() {
            return ModelError::Refused(what);
        }
        if self.is_named(&NO_MODEL) || self.blames(&NO_MODEL_SENTENCES) {
            return model();
        }
        if self.blames(&["unexpected endpoint"]) {
            return server();
        }
        if self.is_named(&["failed_precondition", "unsupported_country"]) {
            return ModelError::Misconfigured(format!("{what}: the provider doesn't serve this account or country"));
        }
        let told = if told == 0 { self.status_of_names() } else { told };
        match told {
            0 => ModelError::BrokeOff(what),
            401 => wrong_key(),
            402 => account(),
            403 => {
                ModelError::Misconfigured(format!("{what}: the key may not use this model; look at {key} and --model"))
            }
            404 | 410 => model(),
            300..=399 => {
                ModelError::Misconfigured(format!("{what}: a redirect, which is not followed; look at {address}"))
            }
            405 | 406 | 415 => server(),
            407 => ModelError::Misconfigured(format!("{what}: the proxy wants a password; look at HTTPS_PROXY")),
            429 => ModelError::RateLimited(wait),
            // 498 is Groq's own, 529 Anthropic's: no capacity.
            498 | 503 | 529 => ModelError::Overloaded(wait),
            // A timeout or a conflict of the provider's own, and a generation that failed (TGI's 424): the same request may
            // do next time.
            408 | 409 | 424 | 425 | 499 => ModelError::BadAnswer(what),
            400..=499 => ModelError::BadRequest(told, what),
            _ => ModelError::BadAnswer(what),
        }
    }

    /// The status that means the same as the names of an error without a number; 0 for none.
    fn status_of_names(&self) -> u16 {
        let is = |parts: &[&str]| self.is_named(parts);
        if is(&["overloaded", "unavailable", "capacity"]) {
            503
        } else if is(&["rate_limit", "resource_exhausted", "too_many_requests"]) {
            429
        } else if is(&["permission"]) {
            403
        } else if is(&["not_found"]) {
            404
        } else if is(&["invalid_request", "invalid_argument", "badrequest", "bad_request"]) {
            400
        } else {
            0
        }
    }

    fn is_too_long(&self) -> bool {
        self.is_named(&TOO_LONG) || self.says(&TOO_LONG_SENTENCES)
    }

    /// Whether a filter refuses the prompt: whoever asks can change it.
    fn is_moderated(&self) -> bool {
        let says = |member: Option<&Value>| {
            member.is_some_and(|value| !matches!(value.to_string().as_str(), "null" | "\"\"" | "[]"))
        };
        let blocked = self.objects.iter().any(|object| {
            says(object.pointer("/promptFeedback/blockReason").or(object.pointer("/prompt_feedback/block_reason")))
                || says(object.pointer("/metadata/reasons"))
                || says(object.pointer("/metadata/flagged_input"))
        });
        blocked || self.is_named(&MODERATED) || self.says(&["content filtering policy", "violating our usage policy"])
    }
}

/// Whether a refusal's body says that the prompt is too long.
pub(super) fn is_too_long(body: &[u8]) -> bool {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    Error::find(&value).is_too_long()
}

/// Whether a refusal's body names this field. The places are too many to be told apart, and another try without the field
/// costs nothing.
pub(super) fn names_field(body: &[u8], field: &str) -> bool {
    memmem::find_iter(body, field).any(|at| {
        let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        !is_word(at.checked_sub(1).and_then(|before| body.get(before))) && !is_word(body.get(at + field.len()))
    })
}

/// Whether a text is an identifier and no sentence.
pub(super) fn is_identifier(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte))
}

/// RFC 9110 section 10.2.3: seconds, or a date. Fractions, and milliseconds in a header of their own, are providers' habits.
fn wait_of(headers: &HeaderMap) -> Option<Duration> {
    let told = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let millis = told(RETRY_AFTER_MS).and_then(|millis| seconds(&(millis.parse::<f64>().ok()? / 1e3).to_string()));
    if millis.is_some() {
        return millis;
    }
    let value = told(RETRY_AFTER.as_str())?;
    seconds(value.strip_suffix('s').unwrap_or(value)).or_else(|| {
        let date = httpdate::parse_http_date(value).ok()?;
        Some(round_up(date.duration_since(SystemTime::now()).unwrap_or_default()))
    })
}

fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.trim().parse().ok()?;
    // Neither negative nor NaN.
    (seconds >= 0.0).then(|| round_up(Duration::from_secs_f64(seconds.min(LONGEST_WAIT.as_secs_f64()))))
}

/// Whole seconds, because readers are told whole seconds; bounded.
fn round_up(wait: Duration) -> Duration {
    let up = u64::from(wait.subsec_nanos() > 0);
    Duration::from_secs(wait.as_secs() + up).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests;
