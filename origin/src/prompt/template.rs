//! Named prompt templates: a name and variables become a conversation of one message.

use std::collections::BTreeMap;

use headwater_protocol::{CURSOR_PARAMETERS, KEY_PARAMETER, Problem, PromptName, Variables};
use leon::Template;
use serde::Deserialize;

/// The longest value of a variable, bytes.
const VALUE_BYTES: usize = 2_000;

/// The prompts that this origin answers, by name.
#[derive(Clone, Debug)]
pub struct Prompts(BTreeMap<String, Prompt>);

/// A prompt template.
///
/// `{name}` stands for the variable `name`; `\{` is a brace.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Source")]
pub struct Prompt {
    template: String,
    defaults: BTreeMap<String, String>,
}

/// How a prompt is written in the configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    template: String,
    #[serde(default)]
    defaults: BTreeMap<String, String>,
}

/// A template that can't be used. The message repeats nothing of it: the file's text stays in the file.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// Its braces don't match.
    #[error("the template doesn't parse: {0}")]
    Syntax(String),
    /// A variable has a name that means something else in a query.
    #[error("a template's variable can't be named {0:?}")]
    Reserved(&'static str),
    /// A default is given for a variable that the template doesn't have.
    #[error("a default is given for a variable that the template hasn't")]
    UnusedDefault,
}

impl Prompts {
    /// The built-in prompts, with `own` beside and in place of them.
    pub fn new(own: BTreeMap<PromptName, Prompt>) -> Self {
        let simple = Prompt {
            template: "Write a short poem about {topic}".into(),
            defaults: BTreeMap::from([("topic".into(), "squirrel".into())]),
        };
        let mut prompts = BTreeMap::from([("simple".to_owned(), simple)]);
        prompts.extend(own.into_iter().map(|(name, prompt)| (name.as_str().to_owned(), prompt)));
        Self(prompts)
    }

    /// The prompt named `name`, filled in: the message of a user.
    ///
    /// # Errors
    /// No such prompt; an unknown, missing or overlong variable.
    pub fn render(&self, name: &str, variables: &Variables) -> Result<String, Problem> {
        self.0.get(name).ok_or_else(Problem::no_such_prompt)?.render(variables)
    }
}

impl Prompt {
    fn render(&self, variables: &Variables) -> Result<String, Problem> {
        // It parsed when the configuration was read.
        let template = Template::parse(&self.template).map_err(|_| Problem::internal())?;
        if variables.0.keys().any(|name| !template.has_key(name)) {
            let known = template.keys().copied().collect::<Vec<_>>().join(", ");
            return Err(Problem::bad_request(format!("unknown variable; the prompt's variables are: {known}")));
        }
        if let Some(name) = variables.0.iter().find_map(|(name, value)| (value.len() > VALUE_BYTES).then_some(name)) {
            return Err(Problem::bad_request(format!("the variable {name} is over {VALUE_BYTES} bytes")));
        }
        // An empty value counts as none.
        let given = variables.0.iter().filter(|(_, value)| !value.trim().is_empty());
        let values: BTreeMap<&str, &str> =
            self.defaults.iter().chain(given).map(|(name, value)| (name.as_str(), value.as_str())).collect();
        match template.keys().find(|key| !values.contains_key(**key)) {
            Some(missing) => Err(Problem::bad_request(format!("the variable {missing} is missing"))),
            None => template.render(&values).map_err(|_| Problem::internal()),
        }
    }
}

impl TryFrom<Source> for Prompt {
    type Error = PromptError;

    fn try_from(Source { template, defaults }: Source) -> Result<Self, PromptError> {
        let parsed = Template::parse(&template).map_err(|error| {
            // The parser's message repeats the template from there on.
            PromptError::Syntax(error.to_string().split(" at span ").next().unwrap_or_default().to_owned())
        })?;
        if let Some(name) = CURSOR_PARAMETERS.into_iter().chain([KEY_PARAMETER]).find(|name| parsed.has_key(name)) {
            return Err(PromptError::Reserved(name));
        }
        if defaults.keys().any(|name| !parsed.has_key(name)) {
            return Err(PromptError::UnusedDefault);
        }
        Ok(Self { template, defaults })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simple(variables: &[(&str, &str)]) -> Result<String, Problem> {
        let variables = Variables(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect());
        Prompts::new(BTreeMap::new()).render("simple", &variables)
    }

    #[test]
    fn a_variable_is_filled_in_as_it_is() {
        assert_eq!(
            simple(&[("topic", "{topic} \\ \u{1f9a6}")]).unwrap(),
            "Write a short poem about {topic} \\ \u{1f9a6}"
        );
    }

    #[test]
    fn an_empty_variable_counts_as_none() {
        for variables in [&[][..], &[("topic", "")], &[("topic", " \t")]] {
            assert_eq!(simple(variables).unwrap(), "Write a short poem about squirrel");
        }
    }

    #[test]
    fn unknown_and_overlong_variables_are_refused() {
        assert!(simple(&[("tpic", "cat")]).is_err());
        assert!(simple(&[("topic", &"x".repeat(2_000))]).is_ok());
        assert!(simple(&[("topic", &"x".repeat(2_001))]).is_err());
        assert_eq!(
            Prompts::new(BTreeMap::new()).render("other", &Variables::default()),
            Err(Problem::no_such_prompt())
        );
    }

    #[test]
    fn a_broken_template_is_refused_when_the_configuration_is_read() {
        let prompt = |json: &str| serde_json::from_str::<Prompt>(json);
        assert!(prompt(r#"{"template": "about {topic"}"#).is_err());
        assert!(prompt(r#"{"template": "about {topic}", "defaults": {"tpic": "x"}}"#).is_err());
        for name in ["last_event_id", "lastEventId", "idempotency_key"] {
            assert!(prompt(&format!(r#"{{"template": "about {{{name}}}"}}"#)).is_err(), "{name} is reserved");
        }
        assert!(prompt(r#"{"template": "about {topic}", "defaults": {"topic": "x"}}"#).is_ok());
    }
}
