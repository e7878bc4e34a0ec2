//! Why a provider's answer ended, in its own word. One table for all protocols, because gateways pass words of one on in
//! another. docs/PROVIDERS.md has the source of each.

use crate::stream::Finish;

/// What a word means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The answer is whole, or was ended by a limit or a filter.
    Good(Finish),
    /// It broke off.
    Broken,
    /// The word isn't known. A provider that has a new one most likely means a good end.
    Unknown,
}

/// What the word means, in whatever case and with whatever hyphens.
pub(super) fn ending(word: &str) -> Ending {
    match &*word.to_ascii_lowercase().replace(['-', ' '], "_") {
        "stop" | "end_turn" | "eos" | "eos_token" | "stop_sequence" | "stop_token" | "stop_word" | "tool_call"
        | "tool_calls" | "tool_use" | "function_call" | "pause_turn" | "complete" | "completed" | "finished"
        | "done" | "end" | "repetition" => Ending::Good(Finish::Stop),
        "length"
        | "max_tokens"
        | "max_output_tokens"
        | "max_completion_tokens"
        | "max_new_tokens"
        | "max_length"
        | "model_length"
        | "model_context_window_exceeded"
        | "error_limit"
        | "continuation"
        | "compaction" => Ending::Good(Finish::Length),
        "content_filter"
        | "content_filtered"
        | "refusal"
        | "safety"
        | "recitation"
        | "language"
        | "blocklist"
        | "prohibited_content"
        | "spii"
        | "image_safety"
        | "image_prohibited_content"
        | "image_recitation"
        | "image_other"
        | "no_image"
        | "model_armor"
        | "escalation"
        | "jailbreak"
        | "sensitive"
        | "error_toxic"
        | "guardrail_intervened"
        | "guardrails" => Ending::Good(Finish::ContentFilter),
        "abort"
        | "aborted"
        | "cancel"
        | "canceled"
        | "cancelled"
        | "error"
        | "failed"
        | "incomplete"
        | "insufficient_system_resource"
        | "load"
        | "unload"
        | "missing_thought_signature"
        | "network_error"
        | "other"
        | "pup_limited_disabled"
        | "server_error"
        | "timeout"
        | "too_many_tool_calls"
        | "unexpected_tool_call"
        | "upstream_error" => Ending::Broken,
        word if word.starts_with("malformed_") => Ending::Broken,
        _ => Ending::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_means_the_same_in_every_spelling_and_one_that_is_not_known_is_told_apart() {
        for (word, meaning) in [
            ("stop", Ending::Good(Finish::Stop)),
            ("STOP", Ending::Good(Finish::Stop)),
            ("eos_token", Ending::Good(Finish::Stop)),
            ("MAX_TOKENS", Ending::Good(Finish::Length)),
            ("content-filter", Ending::Good(Finish::ContentFilter)),
            ("SAFETY", Ending::Good(Finish::ContentFilter)),
            ("abort", Ending::Broken),
            ("insufficient_system_resource", Ending::Broken),
            ("MALFORMED_FUNCTION_CALL", Ending::Broken),
            ("OTHER", Ending::Broken),
            ("load", Ending::Broken),
            ("a_new_word", Ending::Unknown),
        ] {
            assert_eq!(ending(word), meaning, "{word}");
        }
    }
}
