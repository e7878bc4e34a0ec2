//! What is to be answered: conversations, and the named templates that make one of a few variables.
//!
//! # Layout
//! - [`conversation`]: who said what, and how the answer is to be.
//! - [`template`]: a name and variables become a conversation of one message.

pub mod conversation;
pub mod template;

pub use conversation::{Conversation, Format, Message, NothingSaid, Options, Role, Speaker};
pub use template::{Prompt, PromptError, Prompts};
