//! "Did you mean": the known word that an unknown one was probably meant to be.

/// The word among `known` nearest to `wrong`, if one is near: a third of its letters may differ, or all but one of the
/// letters of `wrong` are the beginning of it.
pub(crate) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .filter_map(|word| {
            let common = wrong.chars().zip(word.chars()).take_while(|(a, b)| a == b).count();
            let begins = common >= 3 && common + 1 >= wrong.chars().count();
            let distance = distance(&wrong.to_lowercase(), &word.to_lowercase());
            let allowed = (wrong.chars().count().max(word.chars().count()) / 3).max(1);
            (begins || distance <= allowed).then_some((distance, word))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// The sentence that goes behind an error about an unknown word; empty when nothing is near.
pub(crate) fn did_you_mean<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(wrong, known).map(|word| format!(" (did you mean `{word}`?)")).unwrap_or_default()
}

/// Words as a list for people: `` `a`, `b` and `c` ``.
pub(crate) fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => "none".to_owned(),
    }
}

/// How many letters must be put in, taken out, changed or swapped with their neighbour to make `b` of `a` (optimal
/// string alignment: Damerau 1964).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<_>, Vec<_>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<_> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = change.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_finds_the_word_and_a_far_one_does_not() {
        let check = |wrong: &str, expect: Option<&str>| {
            let known = ["name", "key", "timeout", "response", "idempotent", "description", "crate", "notification"];
            assert_eq!(nearest(wrong, known), expect, "{wrong}");
        };
        check("time_out", Some("timeout"));
        check("nmae", Some("name"));
        check("Key", Some("key"));
        check("desc", Some("description"));
        check("resp", Some("response"));
        check("idempotency", Some("idempotent"));
        check("notify", Some("notification"));
        check("names", Some("name"));
        check("timeframe", None);
        check("http", None);
        check("x", None);
    }

    #[test]
    fn a_swap_counts_once() {
        assert_eq!(distance("regoin", "region"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn a_list_reads_as_a_sentence() {
        assert_eq!(list(["a"]), "`a`");
        assert_eq!(list(["a", "b", "c"]), "`a`, `b` and `c`");
        assert_eq!(list([]), "none");
    }
}
