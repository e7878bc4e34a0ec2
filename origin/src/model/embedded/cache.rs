//! What llama.cpp's cache keeps of earlier turns.
//!
//! Each of its sequences has cells of its own, as many as a context has tokens; they are allotted once. When an answer ends or is
//! left, its sequence keeps the tokens that are decoded, and their keys and values. A conversation that goes on finds them, and
//! reads only what is new. Nothing kept takes anything from an answer that runs: a sequence is free, or it isn't.
//!
//! | a job comes | the free sequence that it gets |
//! |---|---|
//! | one keeps much of the prompt's beginning, and little else | that one; of several the one that keeps most of it |
//! | none does | one beside a sequence that runs; of these an empty one, or else the one that was used longest ago |
//!
//! # Privacy
//! Conversations share nothing but equal tokens at their beginning, whose keys and values depend on nothing else. What another one
//! said can't come into an answer. But whoever guesses the beginning of another's conversation, a long and exact one, may tell by
//! the time to the first token that it was right.

use std::cmp::Reverse;

use llama_cpp_2::{context::LlamaContext, token::LlamaToken};

/// The fewest kept tokens for which a sequence is chosen. Reading fewer takes less time than several tokens of the answer, which
/// come more slowly in a sequence by itself.
const WORTH: usize = 64;
/// The fewest tokens of a prompt that are read, whatever is kept. One would do. But llama.cpp has a kernel for a single column that
/// rounds otherwise than the one for several, and the same prompt with the same seed is to have the same answer, kept or not.
const READ: usize = 2;

/// What each sequence keeps.
pub(super) struct Cache {
    sequences: Vec<Kept>,
    /// The number of uses so far.
    uses: u64,
}

/// What one sequence keeps.
#[derive(Default)]
struct Kept {
    /// The tokens that are decoded, from the first position on.
    tokens: Vec<LlamaToken>,
    /// The number of its last use.
    used: u64,
}

impl Cache {
    pub(super) fn new(sequences: usize) -> Self {
        Self { sequences: (0..sequences).map(|_| Kept::default()).collect(), uses: 0 }
    }

    /// The sequence in which a prompt is best read, of those that don't run.
    pub(super) fn choose(&self, runs: impl Fn(usize) -> bool, prompt: &[LlamaToken]) -> Option<usize> {
        let free = || (0..self.sequences.len()).filter(|&sequence| !runs(sequence));
        let goes_on = free().filter_map(|sequence| {
            let kept = &self.sequences[sequence];
            let common = common(&kept.tokens, prompt);
            // Of what it keeps less is lost than is won.
            (common >= WORTH && 2 * common >= kept.tokens.len()).then_some((common, Reverse(kept.used), sequence))
        });
        let new = || {
            free().min_by_key(|&sequence| {
                let kept = &self.sequences[sequence];
                // llama.cpp decodes sequences together whose numbers follow one another, and others in turn
                // (`llama_batch_allocr::split_equal`).
                let beside = sequence.checked_sub(1).is_some_and(&runs)
                    || Some(sequence + 1).filter(|&next| next < self.sequences.len()).is_some_and(&runs);
                (!beside, !kept.tokens.is_empty(), kept.used)
            })
        };
        goes_on.max().map(|(_, _, sequence)| sequence).or_else(new)
    }

    /// Removes from a sequence all but what the prompt begins with too; returns how many tokens that is.
    pub(super) fn cut(&mut self, context: &mut LlamaContext<'_>, sequence: usize, prompt: &[LlamaToken]) -> usize {
        let tokens = &mut self.sequences[sequence].tokens;
        let common = common(tokens, prompt);
        let whole = common == tokens.len();
        if common > 0 && removed(context, sequence, common, whole) {
            tokens.truncate(common);
        } else {
            self.clear(context, sequence);
        }
        self.sequences[sequence].tokens.len()
    }

    /// Empties a sequence.
    pub(super) fn clear(&mut self, context: &mut LlamaContext<'_>, sequence: usize) {
        self.sequences[sequence].tokens.clear();
        let removed = i32::try_from(sequence).map(|id| context.kv_cache_seq_rm(id, None, None));
        if !matches!(removed, Ok(Ok(()))) {
            tracing::error!(sequence, "a sequence's cache could not be freed");
        }
    }

    /// The tokens of a sequence that are decoded, or are in the batch that is being decoded.
    pub(super) fn tokens(&mut self, sequence: usize) -> &mut Vec<LlamaToken> {
        &mut self.sequences[sequence].tokens
    }

    /// An answer in this sequence ends here.
    pub(super) fn keep(&mut self, sequence: usize) {
        self.uses += 1;
        self.sequences[sequence].used = self.uses;
    }
}

/// How much of a prompt needn't be read.
fn common(kept: &[LlamaToken], prompt: &[LlamaToken]) -> usize {
    let common = kept.iter().zip(prompt).take_while(|(kept, token)| kept == token).count();
    common.min(prompt.len().saturating_sub(READ))
}

/// Removes a sequence's cells from a position on; `whole`: there are none. Returns whether all before it are there, and no others:
/// a recurrent model's memory can't be cut, and one with a sliding window may have lost what it needs.
fn removed(context: &mut LlamaContext<'_>, sequence: usize, from: usize, whole: bool) -> bool {
    let (Ok(id), Ok(from)) = (i32::try_from(sequence), u32::try_from(from)) else { return false };
    context.kv_cache_seq_rm(id, Some(from), None).is_ok()
        && context.kv_cache_seq_pos_max(id) == i32::try_from(from - 1).unwrap_or(-1)
        && (whole || context.kv_cache_seq_pos_min(id) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(numbers: impl IntoIterator<Item = i32>) -> Vec<LlamaToken> {
        numbers.into_iter().map(LlamaToken).collect()
    }

    /// Sequences that keep these tokens, the first one used longest ago.
    fn cache(kept: impl IntoIterator<Item = Vec<LlamaToken>>) -> Cache {
        let mut cache = Cache::new(0);
        for tokens in kept {
            cache.sequences.push(Kept { tokens, used: 0 });
            cache.keep(cache.sequences.len() - 1);
        }
        cache
    }

    #[test]
    fn a_conversation_goes_on_where_most_of_it_is_kept() {
        let cache = cache([tokens(0..100), tokens(0..200), tokens([]), tokens(0..500)]);
        let none = |_| false;
        assert_eq!(cache.choose(none, &tokens(0..300)), Some(3), "of the last one more is kept than lost");
        assert_eq!(cache.choose(none, &tokens(0..210)), Some(1), "of the last one more is lost");
        assert_eq!(cache.choose(|sequence| sequence == 1, &tokens(0..210)), Some(0), "that one runs");
        assert_eq!(cache.choose(none, &tokens(0..WORTH as i32)), Some(2), "too short");
        assert_eq!(cache.choose(|_| true, &tokens(0..210)), None);
    }

    #[test]
    fn another_conversation_takes_an_empty_sequence_or_the_oldest_beside_one_that_runs() {
        let mut cache = cache([tokens(0..100), tokens([]), tokens(0..100), tokens(0..100)]);
        let new = tokens(1000..1100);
        assert_eq!(cache.choose(|_| false, &new), Some(1));
        assert_eq!(cache.choose(|sequence| sequence == 3, &new), Some(2));
        assert_eq!(cache.choose(|sequence| sequence == 2, &new), Some(1));
        cache.tokens(1).extend(tokens(0..100));
        assert_eq!(cache.choose(|_| false, &new), Some(0));
        cache.keep(0);
        assert_eq!(cache.choose(|_| false, &new), Some(1));
    }

    #[test]
    fn the_end_of_a_prompt_is_always_read() {
        assert_eq!(common(&tokens(0..10), &tokens(0..10)), 10 - READ);
        assert_eq!(common(&tokens(0..20), &tokens(0..10)), 10 - READ);
        assert_eq!(common(&tokens(0..10), &tokens(0..20)), 10);
        assert_eq!(common(&tokens(0..10), &tokens([0, 1, 9, 3])), 2);
        assert_eq!(common(&tokens(0..10), &tokens([0])), 0);
    }
}
