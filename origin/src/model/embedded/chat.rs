//! A prompt as the model wants it: in the chat template that its file carries.

use llama_cpp_2::{model::LlamaModel, token::LlamaToken, vocab::LlamaVocab};
use minijinja::{Environment, context, syntax::SyntaxConfig};

/// Stands for the prompt while the template is rendered. Nothing that a template does to text changes it.
const PLACEHOLDER: &str = "HEADWATERPROMPT";

/// What stands before and behind a prompt.
///
/// The prompt itself is tokenized apart, as plain text: whatever a visitor types, none of it becomes one of the
/// tokens that separate the parts of a conversation.
pub(super) struct ChatTemplate {
    before: Vec<LlamaToken>,
    behind: Vec<LlamaToken>,
}

impl ChatTemplate {
    /// The template in the model's file.
    ///
    /// # Errors
    /// There is none, or it can't be rendered; says why.
    pub(super) fn of(model: &LlamaModel) -> Result<Self, String> {
        let template = model.chat_template(None).map_err(|error| error.to_string())?;
        let source = template.to_str().map_err(|error| error.to_string())?;
        let vocab = model.vocab();
        // A vocabulary without such a token says -1, which llama.cpp must not be asked about.
        let text = |token: LlamaToken| match token.0 {
            ..0 => String::new(),
            _ => vocab.text(token).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default(),
        };
        let (bos, eos) = (text(vocab.bos()), text(vocab.eos()));
        let rendered = render(source, &bos, &eos)?;
        let (before, behind) = rendered.split_once(PLACEHOLDER).ok_or("it doesn't show the user's message")?;
        let has_bos = !bos.is_empty() && before.starts_with(&bos);
        let add_bos = vocab.should_add_bos() && !has_bos;
        Ok(Self {
            before: vocab.tokenize(before.as_bytes(), add_bos, true),
            behind: vocab.tokenize(behind.as_bytes(), false, true),
        })
    }

    /// `prompt` in the template.
    pub(super) fn tokens(&self, vocab: &LlamaVocab<'_>, prompt: &str) -> Vec<LlamaToken> {
        let prompt = vocab.tokenize(prompt.as_bytes(), false, false);
        [&self.before[..], &prompt, &self.behind].concat()
    }
}

/// One message of a user, as the template writes it, up to where the answer begins.
fn render(source: &str, bos: &str, eos: &str) -> Result<String, String> {
    let mut environment = Environment::new();
    // Templates are written for Python's Jinja with these two settings, and call methods of its strings.
    let syntax =
        SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(|error| error.to_string())?;
    environment.set_syntax(syntax);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    let messages = [context! { role => "user", content => PLACEHOLDER }];
    let context = context! { messages, add_generation_prompt => true, bos_token => bos, eos_token => eos };
    environment.render_str(source, context).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_with_a_default_system_message_keeps_it() {
        let source = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
            {{ '<|im_start|>system\nBe kind<|im_end|>\n' }}{% endif %}\
            {{'<|im_start|>' + message['role'] + '\n' + message['content'].strip() + '<|im_end|>' + '\n'}}{% endfor %}\
            {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
        let expected = "<|im_start|>system\nBe kind<|im_end|>\n\
            <|im_start|>user\nHEADWATERPROMPT<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(render(source, "", ""), Ok(expected.into()));
    }
}
