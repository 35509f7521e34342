//! What rules and the oracle look at in an answer: its words, cut once.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{Error, Result};

/// An answer cut into lower-case words.
pub(crate) struct Words(Vec<String>);

/// Weights of words, in lower case.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Lexicon(HashMap<String, f64>);

impl Words {
    /// Cuts a text at everything that is neither a letter, a digit nor an apostrophe inside a word.
    pub(crate) fn of(text: &str) -> Self {
        let is_word = |c: char| c.is_alphanumeric() || c == '\'' || c == '\u{2019}';
        let trimmed = text.split(|c: char| !is_word(c)).map(|word| word.trim_matches(['\'', '\u{2019}']));
        Self(trimmed.filter(|word| !word.is_empty()).map(|word| word.to_lowercase().replace('\u{2019}', "'")).collect())
    }

    /// Computes the share of word n-grams that occurred before in the text, in [0, 1); 0 for fewer than `n` words.
    pub(crate) fn repeated_share(&self, n: usize) -> f64 {
        let total = (self.0.len() + 1).saturating_sub(n);
        if n == 0 || total == 0 {
            return 0.0;
        }
        let distinct: HashSet<&[String]> = self.0.windows(n).collect();
        1.0 - distinct.len() as f64 / total as f64
    }
}

impl Lexicon {
    /// Reads a word list; `judge` and `place` are for the message.
    ///
    /// # Errors
    /// [`Error::Word`] for an entry that is not one word, [`Error::WordTwice`] for one listed in two cases.
    pub(crate) fn new(listed: &BTreeMap<String, f64>, judge: &str, place: &str) -> Result<Self> {
        let mut weights = HashMap::new();
        for (word, weight) in listed {
            let (judge, place) = (judge.to_owned(), place.to_owned());
            let Ok([lower]) = <[String; 1]>::try_from(Words::of(word).0) else {
                return Err(Error::Word { judge, place, word: word.clone() });
            };
            if lower.chars().count() != word.to_lowercase().chars().count() {
                return Err(Error::Word { judge, place, word: word.clone() });
            }
            if weights.insert(lower.clone(), *weight).is_some() {
                return Err(Error::WordTwice { judge, place, word: lower });
            }
        }
        Ok(Self(weights))
    }

    /// Lists the words that occur and weigh, each once, in the order of the text.
    pub(crate) fn found<'a>(&self, words: &'a Words) -> Vec<&'a str> {
        let weighs = |word: &&str| self.0.get(*word).is_some_and(|weight| *weight != 0.0);
        let mut seen = HashSet::new();
        words.0.iter().map(String::as_str).filter(weighs).filter(|word| seen.insert(*word)).collect()
    }

    /// Sums the weights of the words that occur, each at most `max_count` times.
    pub(crate) fn sum(&self, words: &Words, max_count: u32) -> f64 {
        let mut counts: HashMap<&str, u32> = HashMap::new();
        let mut total = 0.0;
        for word in &words.0 {
            let Some(weight) = self.0.get(word) else { continue };
            let count = counts.entry(word).or_default();
            *count += 1;
            // Summed in the order of the text, so that the last bit does not depend on a hash map's order.
            total += if *count <= max_count { *weight } else { 0.0 };
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_at_punctuation_and_lowered() {
        let words = Words::of("\u{201c}Don\u{2019}t stop,\u{201d} she said. 'Never' – 3 times!");
        assert_eq!(words.0, ["don't", "stop", "she", "said", "never", "3", "times"]);
    }

    #[test]
    fn repetition_is_the_share_of_seen_ngrams() {
        // Five bigrams: "a b", "b a", "a b", "b a", "a c"; two of them occurred before.
        assert!((Words::of("a b a b a c").repeated_share(2) - 0.4).abs() < 1e-15);
        assert_eq!(Words::of("a b c").repeated_share(2), 0.0);
        assert_eq!(Words::of("a").repeated_share(2), 0.0);
        assert_eq!(Words::of("").repeated_share(1), 0.0);
    }

    #[test]
    fn lexicons_count_whole_words_up_to_a_limit() {
        let listed = BTreeMap::from([("Happy".to_owned(), 1.0), ("sad".to_owned(), -0.5)]);
        let lexicon = Lexicon::new(&listed, "j", "rule 1").expect("valid");
        let words = Words::of("happy HAPPY, unhappy sadness; sad.");
        assert_eq!((lexicon.sum(&words, 1), lexicon.sum(&words, 9)), (0.5, 1.5));
    }

    #[test]
    fn what_cannot_match_is_refused() {
        for bad in ["happy end", "", "--", "(happy)", "well-known"] {
            let listed = BTreeMap::from([(bad.to_owned(), 1.0)]);
            let message = Lexicon::new(&listed, "main", "rule 2").expect_err("refused").to_string();
            assert!(message.starts_with(&format!("judge main, rule 2: {bad:?} is not one word")), "{message}");
        }
        let twice = BTreeMap::from([("Joy".to_owned(), 1.0), ("joy".to_owned(), 2.0)]);
        assert!(matches!(Lexicon::new(&twice, "main", "words"), Err(Error::WordTwice { word, .. }) if word == "joy"));
    }
}
