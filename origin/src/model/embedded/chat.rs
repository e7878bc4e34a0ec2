//! Renders a prompt in the chat template of the model's file, and tokenizes it.

use llama_cpp_2::{model::LlamaModel, token::LlamaToken, vocab::LlamaVocab};

use super::template::Template;

/// The placeholder of the prompt while the template is rendered: a text that no template's filters change.
const PLACEHOLDER: &str = "HEADWATERPROMPT";

/// The template of a model, and how its text becomes tokens.
pub(super) struct ChatTemplate {
    template: Template,
    /// The text of the token at the begin of a conversation; llama.cpp adds it where the template doesn't write it.
    bos: String,
}

impl ChatTemplate {
    /// The template in the model's file.
    ///
    /// # Errors
    /// There is none, or it can't be rendered; the text says why.
    pub(super) fn of(model: &LlamaModel) -> Result<Self, String> {
        let template = model.chat_template(None).map_err(|error| error.to_string())?;
        let source = template.to_str().map_err(|error| error.to_string())?;
        let vocab = model.vocab();
        // A vocabulary without such a token has -1 here, with which llama.cpp must not be called.
        let text = |token: LlamaToken| match token.0 {
            ..0 => String::new(),
            _ => vocab.text(token).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default(),
        };
        let (bos, eos) = (text(vocab.bos()), text(vocab.eos()));
        let template = Template::parse(source, &bos, &eos).map_err(|error| error.to_string())?;
        let chat = Self { template, bos };
        // A template that can't be rendered stops the origin, not its first visitor.
        chat.render()?;
        Ok(chat)
    }

    /// The tokens of `prompt` in the template. Renders the template anew, because it may hold the date.
    ///
    /// The prompt is tokenized apart, as plain text: whatever a visitor types, none of it becomes one of the tokens that
    /// separate the parts of a conversation.
    ///
    /// # Errors
    /// The template can't be rendered; the text says why.
    pub(super) fn tokens(&self, vocab: &LlamaVocab<'_>, prompt: &str) -> Result<Vec<LlamaToken>, String> {
        let rendered = self.render()?;
        let prompt = vocab.tokenize(prompt.as_bytes(), false, false);
        let has_bos = !self.bos.is_empty() && rendered.starts_with(&self.bos);
        let mut parts = rendered.split(PLACEHOLDER);
        let before = parts.next().unwrap_or_default();
        let mut tokens = vocab.tokenize(before.as_bytes(), vocab.should_add_bos() && !has_bos, true);
        for behind in parts {
            tokens.extend(&prompt);
            tokens.extend(vocab.tokenize(behind.as_bytes(), false, true));
        }
        Ok(tokens)
    }

    /// The template's text, with the placeholder.
    fn render(&self) -> Result<String, String> {
        let rendered = self.template.render(PLACEHOLDER).map_err(|error| error.to_string())?;
        let shown = rendered.contains(PLACEHOLDER);
        shown.then_some(rendered).ok_or_else(|| "it doesn't show the user's message".into())
    }
}
