//! The nearest known name to one that is not known.

use strsim::damerau_levenshtein;

/// Most suggestions in one message.
const SHOWN: usize = 2;

/// Finds known names close to `name`, nearest first.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let ranked = known.into_iter().filter_map(|other| Some((distance(name, other)?, other.to_owned())));
    shortest(ranked.collect())
}

/// Finds known dotted keys whose last part is close to that of `key`; among equals those of the same section come first.
pub(crate) fn nearest_keys(key: &str, known: &[String]) -> Vec<String> {
    let (section, name) = split(key);
    let ranked = known.iter().filter_map(|other| {
        let (other_section, other_name) = split(other);
        let elsewhere = usize::from(section != other_section);
        // A table of another section is no replacement for a key here unless the names are all but equal.
        Some((2 * distance(name, other_name)? + elsewhere, other.clone()))
    });
    shortest(ranked.collect())
}

/// Edit distance, or `None` for names that nobody would confuse: more than a third of the letters differ.
fn distance(a: &str, b: &str) -> Option<usize> {
    let (a, b) = (a.to_lowercase().replace('-', "_"), b.to_lowercase().replace('-', "_"));
    let distance = damerau_levenshtein(&a, &b);
    (distance <= a.len().max(b.len()).div_ceil(3).min(4)).then_some(distance)
}

fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

/// Keeps the names of the smallest distance.
fn shortest(mut ranked: Vec<(usize, String)>) -> Vec<String> {
    ranked.sort();
    let Some(best) = ranked.first().map(|(distance, _)| *distance) else { return Vec::new() };
    ranked.into_iter().take_while(|(distance, _)| *distance == best).take(SHOWN).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_key_wherever_it_is() {
        let known = ["learner", "learner.adam_beta1", "learner.steps", "loss.beta"].map(str::to_owned);
        assert_eq!(nearest_keys("learner.beeta", &known), ["loss.beta"]);
        assert_eq!(nearest_keys("learner.stesp", &known), ["learner.steps"]);
        assert_eq!(nearest_keys("lerner", &known), ["learner"]);
        assert!(nearest_keys("learner.zzz", &known).is_empty());
    }

    #[test]
    fn names_that_nobody_would_confuse_are_not_offered() {
        assert_eq!(nearest("mian", ["main", "other"]), ["main"]);
        assert_eq!(nearest("oaif_dpo", ["oaif-dpo", "oaif-ipo"]), ["oaif-dpo"]);
        assert!(nearest("x", ["main"]).is_empty());
    }
}
