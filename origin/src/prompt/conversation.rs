//! A conversation: who said what, in no client's and no provider's form.
//!
//! | what a client sends | what becomes of it |
//! |---|---|
//! | system texts, at any place | one system text, a blank line between them |
//! | neighbours of one role | one message, a blank line between them: many chat templates refuse two turns of one role |
//! | a text of blanks alone | nothing |
//! | system texts and nothing else | the user's message: without one a model has nothing to answer |
//! | an assistant's message at the end | the beginning of the answer; the embedded model goes on with it, as Anthropic's do |

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Stands between texts that become one.
const BETWEEN: &str = "\n\n";

/// What was said so far. A clone shares the texts. `Debug` shows none of them.
#[derive(Clone, PartialEq, Eq)]
pub struct Conversation(Arc<Said>);

#[derive(PartialEq, Eq, Serialize)]
struct Said {
    system: Option<String>,
    messages: Vec<Message>,
}

/// One message, never of blanks alone.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// The text.
    pub text: String,
}

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Who asks.
    User,
    /// The model.
    Assistant,
}

/// Who says a text that a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// Who tells the model how to answer.
    System,
    /// Who asks.
    User,
    /// The model.
    Assistant,
}

/// There is no text to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no message has a text")]
pub struct NothingSaid;

/// How an answer is to be. What isn't given is as the model has it. `Debug` shows no text.
#[derive(Clone, Default, PartialEq, Serialize)]
pub struct Options {
    /// The most tokens, thoughts included. The origin's own limit holds too.
    pub max_tokens: Option<u32>,
    /// How freely the model chooses, 0 to 2.
    pub temperature: Option<f32>,
    /// The probability of the tokens among which it chooses, 0 to 1.
    pub top_p: Option<f32>,
    /// Texts before which the answer ends. None of them is empty.
    pub stop: Vec<String>,
    /// The same seed gives the same answer, where the model can.
    pub seed: Option<i64>,
    /// How unwelcome a token is the more often it stands in the answer, -2 to 2.
    pub frequency_penalty: Option<f32>,
    /// How unwelcome a token is that stands in the answer, -2 to 2.
    pub presence_penalty: Option<f32>,
    /// What kind of text.
    pub format: Format,
    /// How much the model is to think, in the provider's words.
    pub reasoning_effort: Option<String>,
}

/// The kind of text that an answer is.
#[derive(Clone, Default, PartialEq, Serialize)]
pub enum Format {
    /// Any.
    #[default]
    Text,
    /// One JSON object.
    Json,
    /// JSON of a schema: OpenAI's `json_schema`, an object with `name`, `schema` and more, as its text.
    Schema(#[serde(serialize_with = "text")] Arc<str>),
}

impl Conversation {
    /// One message of a user.
    pub fn of_prompt(text: String) -> Self {
        Self(Arc::new(Said { system: None, messages: vec![Message { role: Role::User, text }] }))
    }

    /// What these speakers say, in this order.
    ///
    /// # Errors
    /// None of them says anything.
    pub fn new(turns: impl IntoIterator<Item = (Speaker, String)>) -> Result<Self, NothingSaid> {
        let mut system: Option<String> = None;
        let mut messages: Vec<Message> = Vec::new();
        for (speaker, text) in turns.into_iter().filter(|(_, text)| !text.trim().is_empty()) {
            let role = match speaker {
                Speaker::User => Role::User,
                Speaker::Assistant => Role::Assistant,
                Speaker::System => {
                    match &mut system {
                        Some(before) => before.extend([BETWEEN, &text]),
                        None => system = Some(text),
                    }
                    continue;
                }
            };
            match messages.last_mut().filter(|last| last.role == role) {
                Some(last) => last.text.extend([BETWEEN, &text]),
                None => messages.push(Message { role, text }),
            }
        }
        if messages.is_empty() {
            return system.map(Self::of_prompt).ok_or(NothingSaid);
        }
        Ok(Self(Arc::new(Said { system, messages })))
    }

    /// How to answer.
    pub fn system(&self) -> Option<&str> {
        self.0.system.as_deref()
    }

    /// The messages, one or more; neighbours have different roles.
    pub fn messages(&self) -> &[Message] {
        &self.0.messages
    }

    /// All texts: the system's, where there is one, and the messages'.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.system().into_iter().chain(self.messages().iter().map(|message| message.text.as_str()))
    }

    /// A digest of all that the answer depends on: the model that was asked for, the conversation, the options.
    pub fn digest(&self, model: Option<&str>, options: &Options) -> [u8; 32] {
        // Strings and numbers can be written. One JSON text has one meaning.
        let json = serde_json::to_vec(&(model, self, options)).unwrap_or_default();
        Sha256::digest(json).into()
    }

    /// For a log that may hold texts: one JSON object.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

impl Serialize for Conversation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conversation({} messages)", self.messages().len())
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { max_tokens, temperature, top_p, .. } = self;
        write!(f, "Options(max_tokens {max_tokens:?}, temperature {temperature:?}, top_p {top_p:?})")
    }
}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "Text",
            Self::Json => "Json",
            Self::Schema(_) => "Schema",
        })
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({:?}, {} bytes)", self.role, self.text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::Speaker::{Assistant, System, User};
    use super::*;

    fn conversation(turns: &[(Speaker, &str)]) -> Result<Conversation, NothingSaid> {
        Conversation::new(turns.iter().map(|(speaker, text)| (*speaker, (*text).to_owned())))
    }

    fn texts(conversation: &Conversation) -> Vec<(Role, &str)> {
        conversation.messages().iter().map(|message| (message.role, message.text.as_str())).collect()
    }

    #[test]
    fn system_texts_are_one_and_neighbours_of_one_role_are_one() {
        let turns =
            [(System, "be brief"), (User, "a"), (System, "in verse"), (User, "b"), (Assistant, " \n"), (User, "c")];
        let said = conversation(&turns).unwrap();
        assert_eq!(said.system(), Some("be brief\n\nin verse"));
        assert_eq!(texts(&said), [(Role::User, "a\n\nb\n\nc")]);
        let said = conversation(&[(Assistant, "hi"), (User, "a"), (Assistant, "b")]).unwrap();
        assert_eq!(texts(&said), [(Role::Assistant, "hi"), (Role::User, "a"), (Role::Assistant, "b")]);
    }

    #[test]
    fn without_a_message_the_system_text_is_the_users_and_without_a_text_there_is_nothing() {
        let said = conversation(&[(System, "say hello")]).unwrap();
        assert_eq!((said.system(), texts(&said)), (None, vec![(Role::User, "say hello")]));
        assert_eq!(conversation(&[(User, "\t"), (Assistant, "")]), Err(NothingSaid));
        assert_eq!(conversation(&[]), Err(NothingSaid));
    }

    #[test]
    fn a_digest_tells_apart_what_gives_another_answer() {
        let said = |turns: &[(Speaker, &str)]| conversation(turns).unwrap().digest(None, &Options::default());
        let one = said(&[(User, "a"), (Assistant, "b"), (User, "c")]);
        assert_eq!(one, said(&[(User, "a"), (Assistant, "b"), (User, "c"), (User, " ")]));
        for other in [&[(User, "a\n\nb\n\nc")][..], &[(System, "a"), (Assistant, "b"), (User, "c")]] {
            assert_ne!(one, said(other));
        }
        let prompt = Conversation::of_prompt("a".into());
        let cold = Options { temperature: Some(0.0), ..Options::default() };
        assert_ne!(prompt.digest(None, &cold), prompt.digest(None, &Options::default()));
        assert_ne!(prompt.digest(Some("m"), &cold), prompt.digest(None, &cold));
    }

    #[test]
    fn debugging_shows_no_text() {
        let said = conversation(&[(System, "secret"), (User, "secret")]).unwrap();
        assert!(!format!("{said:?} {:?}", said.messages()).contains("secret"));
    }
}
