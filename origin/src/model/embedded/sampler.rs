//! How an answer's tokens are chosen: llama.cpp's samplers, by the settings and by what is asked for.

use llama_cpp_2::sampling::LlamaSampler;

use super::Settings;
use crate::prompt::Options;

/// The number of last tokens that the repetition penalty counts.
const PENALTY_WINDOW: i32 = 64;

/// The chain for one answer of at most `max_tokens`, in a vocabulary of this size.
pub(super) fn sampler(settings: &Settings, options: &Options, max_tokens: u32, vocabulary: i32) -> LlamaSampler {
    let penalties = LlamaSampler::penalties(vocabulary, PENALTY_WINDOW, settings.repetition_penalty, 0.0, 0.0);
    let mut chain = vec![penalties];
    let (frequency, presence) =
        (options.frequency_penalty.unwrap_or_default(), options.presence_penalty.unwrap_or_default());
    if (frequency, presence) != (0.0, 0.0) {
        // These count the whole answer.
        let window = i32::try_from(max_tokens).unwrap_or(i32::MAX);
        chain.push(LlamaSampler::penalties(vocabulary, window, 1.0, frequency, presence));
    }
    let temperature = options.temperature.unwrap_or(settings.temperature);
    if temperature <= 0.0 {
        chain.push(LlamaSampler::greedy());
    } else {
        let seed = options.seed.map(seed).or(settings.seed).unwrap_or_else(rand::random);
        chain.extend([
            LlamaSampler::top_k(i32::from(settings.top_k)),
            LlamaSampler::top_p(options.top_p.unwrap_or(settings.top_p), 1),
            LlamaSampler::min_p(settings.min_p, 1),
            LlamaSampler::temp(temperature),
            LlamaSampler::dist(seed),
        ]);
    }
    LlamaSampler::chain_simple(chain)
}

/// llama.cpp's seed for a client's: those from 0 on stay as they are, as far as they go. The greatest one is left out; llama.cpp
/// takes it for "random".
fn seed(seed: i64) -> u32 {
    u32::try_from(seed.rem_euclid(u32::MAX.into())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_one_of_llama_cpps_and_never_its_random_one() {
        let greatest = u32::MAX - 1;
        assert_eq!([0, 7, i64::from(greatest)].map(seed), [0, 7, greatest]);
        assert_eq!([-1, u32::MAX.into(), i64::from(u32::MAX) + 7].map(seed), [greatest, 0, 7]);
        assert!([i64::MIN, i64::MAX].into_iter().all(|extreme| seed(extreme) < u32::MAX));
    }
}
