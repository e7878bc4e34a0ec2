//! Models' names, as `--model` takes them: parsed once, so that a wrong one stops the origin before it starts.

use std::{fmt, str::FromStr};

use super::address::BaseUrl;

/// A model's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// `embedded`: the one in this process.
    Embedded,
    /// A model behind an API, by its name there.
    Remote(Api, String),
}

/// The API through which a remote model is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Api {
    /// `PROVIDER:MODEL`.
    Provider(&'static Provider),
    /// `BASE_URL#MODEL`: a server that speaks OpenAI's protocol.
    Server(BaseUrl),
}

/// A protocol in which models are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// OpenAI's chat completions.
    OpenAi,
    /// Anthropic's messages.
    Anthropic,
    /// Gemini's `streamGenerateContent`.
    Gemini,
    /// Ollama's chat.
    Ollama,
}

/// A provider: its protocol, its address, and the variables that its own tools read.
#[derive(Debug, PartialEq, Eq)]
pub struct Provider {
    /// The part of a model's name before the colon.
    pub name: &'static str,
    /// What it speaks.
    pub(crate) protocol: Protocol,
    /// The variable of its key; `None` where it takes none.
    pub(crate) key: Option<&'static str>,
    /// Its address.
    pub(crate) address: &'static str,
    /// The variable with which its own tools replace the address.
    pub(crate) address_variable: Option<&'static str>,
    /// The path that is appended to the variable's address, which has no version.
    pub(crate) path: &'static str,
}

/// The providers.
pub static PROVIDERS: [Provider; 9] = [
    Provider {
        name: "openai",
        protocol: Protocol::OpenAi,
        key: Some("OPENAI_API_KEY"),
        address: "https://api.openai.com/v1",
        address_variable: Some("OPENAI_BASE_URL"),
        path: "",
    },
    Provider {
        name: "anthropic",
        protocol: Protocol::Anthropic,
        key: Some("ANTHROPIC_API_KEY"),
        address: "https://api.anthropic.com",
        address_variable: Some("ANTHROPIC_BASE_URL"),
        path: "v1",
    },
    Provider {
        name: "gemini",
        protocol: Protocol::Gemini,
        key: Some("GEMINI_API_KEY"),
        address: "https://generativelanguage.googleapis.com",
        address_variable: Some("GOOGLE_GEMINI_BASE_URL"),
        path: "v1beta",
    },
    Provider {
        name: "ollama",
        protocol: Protocol::Ollama,
        key: None,
        address: "http://127.0.0.1:11434",
        address_variable: Some("OLLAMA_HOST"),
        path: "",
    },
    Provider {
        name: "groq",
        protocol: Protocol::OpenAi,
        key: Some("GROQ_API_KEY"),
        address: "https://api.groq.com",
        address_variable: Some("GROQ_BASE_URL"),
        path: "openai/v1",
    },
    openai_like("deepseek", "DEEPSEEK_API_KEY", "https://api.deepseek.com/v1"),
    openai_like("mistral", "MISTRAL_API_KEY", "https://api.mistral.ai/v1"),
    openai_like("openrouter", "OPENROUTER_API_KEY", "https://openrouter.ai/api/v1"),
    openai_like("xai", "XAI_API_KEY", "https://api.x.ai/v1"),
];

/// A provider that speaks OpenAI's protocol and has one address.
const fn openai_like(name: &'static str, key: &'static str, address: &'static str) -> Provider {
    Provider { name, protocol: Protocol::OpenAi, key: Some(key), address, address_variable: None, path: "" }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "embedded" {
            return Ok(Self::Embedded);
        }
        if text.contains("://") {
            let (url, model) = text.rsplit_once('#').ok_or("name the server's model after its URL: BASE_URL#MODEL")?;
            return Ok(Self::Remote(Api::Server(url.parse()?), parse_model(model)?));
        }
        let provider = text.split_once(':').and_then(|(name, model)| {
            let provider = PROVIDERS.iter().find(|provider| provider.name == name)?;
            Some((provider, model))
        });
        let (provider, model) = provider.ok_or_else(|| {
            let providers = PROVIDERS.each_ref().map(|provider| format!("{}:MODEL", provider.name)).join(", ");
            format!("takes embedded, {providers}, or BASE_URL#MODEL")
        })?;
        Ok(Self::Remote(Api::Provider(provider), parse_model(model)?))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded"),
            Self::Remote(Api::Provider(provider), model) => write!(f, "{}:{model}", provider.name),
            Self::Remote(Api::Server(url), model) => write!(f, "{}#{model}", url.as_str().trim_end_matches('/')),
        }
    }
}

/// The name that the provider knows the model by; it may become a part of a path.
fn parse_model(text: &str) -> Result<String, String> {
    let unfit = |character: char| character.is_whitespace() || character.is_control() || "?#%\\".contains(character);
    if text.is_empty() || text.contains(unfit) || text.split('/').any(|part| part == "..") {
        return Err(format!("{text:?} is no provider's name of a model"));
    }
    Ok(text.to_owned())
}

/// Asks all models, in order of preference.
pub const DEFAULT: &str = "default";

/// A further name of a model: `NAME=MODEL`. The name `*` stands for any, the model `default` for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The name that clients send.
    pub name: String,
    /// The model that they get.
    pub model: String,
}

/// A text that is no alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an alias is NAME=MODEL, such as gpt-4o-mini=embedded or *=default")]
pub struct ParseAliasError;

impl FromStr for Alias {
    type Err = ParseAliasError;

    fn from_str(text: &str) -> Result<Self, ParseAliasError> {
        let (name, model) = text.split_once('=').ok_or(ParseAliasError)?;
        let (name, model) = (name.trim(), model.trim());
        if name.is_empty() || model.is_empty() || name == DEFAULT {
            return Err(ParseAliasError);
        }
        Ok(Self { name: name.to_owned(), model: model.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_written_as_it_was_read() {
        for text in [
            "embedded",
            "openai:gpt-5-mini",
            "ollama:qwen3:8b",
            "openrouter:meta-llama/llama-4:free",
            "http://127.0.0.1:8080/v1#qwen2.5",
            "http://[::1]:8080#a",
            "https://models.example/openai/v1#org/model-max",
        ] {
            assert_eq!(text.parse::<Name>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_what_would_be() {
        for (text, told) in [
            ("none", "openai:MODEL"),
            ("gpt-5", "openai:MODEL"),
            ("unknown:gpt-5", "BASE_URL#MODEL"),
            ("openai:", "no provider's name"),
            ("gemini:../../secrets", "no provider's name"),
            ("https://models.example/v1", "BASE_URL#MODEL"),
            ("ftp://127.0.0.1/v1#a", "https://"),
            ("https://#a", "can't be read"),
            ("https://me:secret@models.example/v1#a", "no user"),
            ("https://models.example/v1?key=secret#a", "no user"),
        ] {
            let error = text.parse::<Name>().unwrap_err();
            assert!(error.contains(told) && !error.contains("secret@"), "{text}: {error}");
        }
    }
}
