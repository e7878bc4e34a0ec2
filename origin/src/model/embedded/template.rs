//! Chat templates: Jinja with Transformers' additions, for which they are written.

use jiff::{Timestamp, fmt::strtime};
use minijinja::{Environment, Error, ErrorKind, Value, context, syntax::SyntaxConfig};
use minijinja_contrib::pycompat;

/// The template's name in errors, beside the line.
const NAME: &str = "the template";

/// A template that can be rendered.
pub(super) struct Template {
    environment: Environment<'static>,
}

impl Template {
    /// Reads a template; `bos` and `eos` are the texts of the tokens at the begin and end of a conversation.
    ///
    /// # Errors
    /// It isn't Jinja.
    pub(super) fn parse(source: &str, bos: &str, eos: &str) -> Result<Self, Error> {
        let mut environment = Environment::new();
        // Transformers' settings of Python's Jinja. Templates also call methods of Python's strings and lists.
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_unknown_method_callback(pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_global("bos_token", bos);
        environment.add_global("eos_token", eos);
        // Transformers defines both in every conversation.
        environment.add_global("tools", ());
        environment.add_global("documents", ());
        environment.add_template_owned(NAME, without_generation_tags(source))?;
        Ok(Self { environment })
    }

    /// Messages, each a role and a text, up to where the answer begins.
    ///
    /// # Errors
    /// The template calls something that doesn't exist, or refuses the conversation. The error is one line.
    pub(super) fn render<'a>(&self, said: impl IntoIterator<Item = (&'static str, &'a str)>) -> Result<String, Error> {
        let messages: Vec<Value> = said.into_iter().map(|(role, content)| context! { role, content }).collect();
        self.environment.get_template(NAME)?.render(context! { messages, add_generation_prompt => true })
    }
}

/// Transformers' function by which a template refuses a conversation.
fn raise_exception(reason: &str) -> Result<Value, Error> {
    let reason: Vec<&str> = reason.split_whitespace().collect();
    Err(Error::new(ErrorKind::InvalidOperation, format!("the template refuses the prompt: {}", reason.join(" "))))
}

/// Transformers' function for the date, here in UTC: `strftime_now("%Y-%m-%d")`.
fn strftime_now(format: &str) -> Result<String, Error> {
    strtime::format(format, Timestamp::now())
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// Replaces Transformers' tags `{% generation %}` and `{% endgeneration %}`, which mark the text that training uses, by a
/// block that is always rendered. The dashes that trim the text around a tag stay.
fn without_generation_tags(source: &str) -> String {
    let mut replaced = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, opened)) = rest.split_once("{%") {
        replaced.extend([before, "{%"]);
        rest = opened;
        let Some((tag, behind)) = opened.split_once("%}") else { break };
        let name = tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let block = match name {
            "generation" => "if true",
            "endgeneration" => "endif",
            _ => continue,
        };
        replaced.extend([&tag.replace(name, block), "%}"]);
        rest = behind;
    }
    replaced + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String, String> {
        let template = Template::parse(source, "<s>", "</s>");
        template.and_then(|template| template.render([("user", "HELLO")])).map_err(|error| error.to_string())
    }

    /// Renders with the date of today, whatever midnight does.
    fn assert_dated(source: &str, expected: impl Fn(&str) -> String, format: &str) {
        let before = strftime_now(format).unwrap();
        let rendered = render(source).unwrap();
        let after = strftime_now(format).unwrap();
        assert!([before, after].iter().any(|date| rendered == expected(date)), "{rendered}");
    }

    #[test]
    fn a_template_with_a_default_system_message_keeps_it() {
        let source = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
            {{ '<|im_start|>system\nBe kind<|im_end|>\n' }}{% endif %}\
            {{'<|im_start|>' + message['role'] + '\n' + message['content'].strip() + '<|im_end|>' + '\n'}}{% endfor %}\
            {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
        let expected = "<|im_start|>system\nBe kind<|im_end|>\n\
            <|im_start|>user\nHELLO<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(render(source), Ok(expected.into()));
    }

    #[test]
    fn a_date_may_stand_in_a_macro_as_in_gpt_oss() {
        let source = r#"
            {%- macro head(name) %}
                {%- set ns = namespace(lines=["You are " ~ name]) %}
                {{- ns.lines[0] + "\n" }}
                {{- "Current date: " + strftime_now("%Y-%m-%d") + "\n" }}
                {%- if tools %}
                    {{- raise_exception("no tools here") }}
                {%- endif %}
            {%- endmacro %}
            {{- "<|start|>system<|message|>" + head("a model") + "<|end|>" }}
            {%- for message in messages -%}
                {%- if message.role == "user" %}
                    {{- "<|start|>user<|message|>" + message.content + "<|end|>" }}
                {%- elif "thinking" in message and "content" in message %}
                    {{- raise_exception("one of both") }}
                {%- endif %}
            {%- endfor -%}
            {%- if add_generation_prompt -%}
                <|start|>assistant
            {%- endif -%}
        "#;
        let expected = |date: &str| {
            format!(
                "<|start|>system<|message|>You are a model\nCurrent date: {date}\n<|end|>\
                 <|start|>user<|message|>HELLO<|end|><|start|>assistant"
            )
        };
        assert_dated(source, expected, "%Y-%m-%d");
    }

    #[test]
    fn a_date_may_stand_in_the_default_system_message_as_in_mistral_small_3() {
        let source = r#"
            {%- set today = strftime_now("%Y-%m-%d") %}
            {%- set default = "You know nothing after 2023. Today is " + today + "." %}
            {{- bos_token }}
            {%- if messages[0]["role"] == "system" %}
                {%- set system, rest = messages[0]["content"], messages[1:] %}
            {%- else %}
                {%- set system, rest = default, messages %}
            {%- endif %}
            {{- "[SYSTEM]" + system + "[/SYSTEM]" }}
            {%- for message in rest %}
                {%- if message["role"] == "user" %}
                    {{- "[INST]" + message["content"] + "[/INST]" }}
                {%- elif message["role"] == "assistant" %}
                    {{- message["content"] + eos_token }}
                {%- else %}
                    {{- raise_exception("Only users and assistants have a say") }}
                {%- endif %}
            {%- endfor -%}
        "#;
        let expected =
            |date: &str| format!("<s>[SYSTEM]You know nothing after 2023. Today is {date}.[/SYSTEM][INST]HELLO[/INST]");
        assert_dated(source, expected, "%Y-%m-%d");
    }

    #[test]
    fn a_date_may_be_written_out_as_in_granite() {
        let source = r#"
            {%- if tools is not none or documents is not none %}{{ raise_exception("none were given") }}{%- endif %}
            {%- set system = "Today's Date: " + strftime_now("%B %d, %Y") + ".\n" -%}
            {{- "<|role|>system<|/role|>" + system }}
            {%- for message in messages %}
                {{- "<|role|>" + message["role"] + "<|/role|>" + message["content"] + "<|end|>\n" }}
                {%- if loop.last and add_generation_prompt %}
                    {{- "<|role|>assistant<|/role|>" }}
                {%- endif %}
            {%- endfor -%}
        "#;
        let expected = |date: &str| {
            format!(
                "<|role|>system<|/role|>Today's Date: {date}.\n\
                 <|role|>user<|/role|>HELLO<|end|>\n<|role|>assistant<|/role|>"
            )
        };
        assert_dated(source, expected, "%B %d, %Y");
    }

    #[test]
    fn what_a_model_is_to_learn_may_be_marked_as_in_smollm3() {
        let source = r#"
            {%- if enable_thinking is not defined -%}{%- set enable_thinking = true -%}{%- endif -%}
            {%- for message in messages -%}
                {%- if message.role == "user" -%}
                    {{- "<|im_start|>user\n" + message.content.rstrip() + "<|im_end|>\n" -}}
                {%- elif message.role == "assistant" -%}
                    {% generation %}
                    {{- "<|im_start|>assistant\n" + message.content + "<|im_end|>\n" -}}
                    {% endgeneration %}
                {%- endif -%}
            {%- endfor -%}
            {%- if add_generation_prompt -%}
                {%- generation -%}
                    {{- "<|im_start|>assistant\n" ~ ("" if enable_thinking else "<think></think>") -}}
                {%- endgeneration -%}
            {%- endif -%}
        "#;
        assert_eq!(render(source), Ok("<|im_start|>user\nHELLO<|im_end|>\n<|im_start|>assistant\n".into()));
    }

    #[test]
    fn the_dashes_of_a_generation_tag_stay_and_other_tags_too() {
        let replaced = without_generation_tags("{%- generation %} a {%+endgeneration -%}{% if generation %}{% b");
        assert_eq!(replaced, "{%- if true %} a {%+endif -%}{% if generation %}{% b");
    }

    #[test]
    fn loops_may_be_left_and_continued() {
        let source = "{% for n in range(9) %}{% if n == 1 %}{% continue %}{% endif %}\
            {% if n == 4 %}{% break %}{% endif %}{{ n }}{% endfor %}";
        assert_eq!(render(source), Ok("023".into()));
    }

    #[test]
    fn a_template_that_refuses_the_prompt_says_why_in_one_line() {
        let refused =
            render("\n{% if not tools %}{{ raise_exception('no tools,\n no answer') }}{% endif %}").unwrap_err();
        assert_eq!(
            refused,
            "invalid operation: the template refuses the prompt: no tools, no answer (in the template:2)"
        );
    }

    #[test]
    fn a_template_that_can_not_be_read_says_where() {
        let unread = render("{% if true %}\n{% unknown %}{% endif %}").unwrap_err();
        assert!(unread.contains("unknown") && unread.ends_with("(in the template:2)"), "{unread}");
        let undated = render("{{ strftime_now('%!') }}").unwrap_err();
        assert!(undated.contains("strftime") && !undated.contains('\n'), "{undated}");
    }
}
