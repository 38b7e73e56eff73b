//! What full-text search takes for a word, in a message and in a question alike.
//!
//! In: plain text. Out: its words, folded, each once. Never: knows of an index, or parses a stanza.
//!
//! A word is a run of letters and digits, of one case and without accents (compatibility decomposition, marks left out): `Café`
//! and `CAFE` are one word, `ё` is `е`. A character of a script that is written without spaces between words (Chinese, Japanese) is a
//! word of its own. A question wants messages that have every one of its words, in any order; a word of two characters or more
//! stands for all that begin with it, which is what finds the other forms of a word in languages with endings.

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

/// A word is cut after so many bytes, in messages and in questions. Longer ones are keys and addresses, and found by their beginnings.
pub(crate) const WORD_BYTES_MAX: usize = 48;

/// Words of one message that are found. Some hundred pages; the rest is somebody's data.
pub(crate) const WORDS_MAX: usize = 4_096;

/// Words of one question; the others do not narrow it further. Each is a look into the index.
pub(crate) const QUESTION_WORDS_MAX: usize = 16;

/// Written without spaces between words: CJK ideographs, Hiragana, Katakana.
fn stands_alone(c: char) -> bool {
    matches!(c as u32, 0x3040..=0x30ff | 0x31f0..=0x31ff | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x3ffff)
}

/// The words of a text, sorted, each once; `max` at most, the first ones.
pub(crate) fn words(text: &str, max: usize) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut count = 0;
    let mut end = |word: &mut String| {
        if word.is_empty() {
            return true;
        }
        words.push(std::mem::take(word));
        count += 1;
        count < max
    };
    let ascii = text.is_ascii();
    let folded = text
        .nfkd()
        .filter(|c| !is_combining_mark(*c))
        // By way of the capital: ß is SS, and the two forms of the small sigma have one.
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase);
    let mut take = |c: char| {
        if !c.is_alphanumeric() {
            return end(&mut word);
        }
        if stands_alone(c) && !end(&mut word) {
            return false;
        }
        if word.len() + c.len_utf8() <= WORD_BYTES_MAX {
            word.push(c);
        }
        !stands_alone(c) || end(&mut word)
    };
    let whole = match ascii {
        true => text.bytes().all(|b| take(b.to_ascii_lowercase() as char)),
        false => folded.into_iter().all(&mut take),
    };
    if whole {
        end(&mut word);
    }
    words.sort_unstable();
    words.dedup();
    words
}

/// Whether a message with these words is what is looked for.
pub(crate) fn found(wanted: &[String], words: &[String]) -> bool {
    wanted.iter().all(|wanted| {
        let from = words.partition_point(|word| word < wanted);
        words.get(from).is_some_and(|word| match is_prefix(wanted) {
            true => word.starts_with(wanted.as_str()),
            false => word == wanted,
        })
    })
}

/// Whether a word of a question stands for all that begin with it.
pub(crate) fn is_prefix(word: &str) -> bool {
    word.chars().nth(1).is_some()
}

/// The words a question is about. `None`: it has none, and nothing is found.
pub(crate) fn question(text: &str) -> Option<Vec<String>> {
    Some(words(text, QUESTION_WORDS_MAX)).filter(|words| !words.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_folded_and_each_is_there_once() {
        for (text, want) in [
            ("", &[][..]),
            ("\"\" ' -- !? \u{1f600} * ^ ()", &[]),
            ("To be, or not to be", &["be", "not", "or", "to"]),
            ("Café CAFE cafe\u{301}", &["cafe"]),
            (
                "Straße STRASSE İstanbul ﬁn",
                &["fin", "istanbul", "strasse"],
            ),
            ("ΟΔΟΣ οδος Οδοσ", &["οδοσ"]),
            ("Ёлка ёлки СЛОВО", &["елка", "елки", "слово"]),
            ("東京タワー3F", &["3f", "東", "京", "タ", "ワ", "ー"]),
            (
                "a1-b2_c3 AT&T x@y.example",
                &["a1", "at", "b2", "c3", "example", "t", "x", "y"],
            ),
            ("نص عربي שלום", &["عربي", "نص", "שלום"]),
        ] {
            let mut want: Vec<&str> = want.to_vec();
            want.sort_unstable();
            let got = words(text, 100);
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn long_words_are_cut_and_many_left_out() {
        let long = "x".repeat(200);
        assert_eq!(words(&long, 9), [long[..WORD_BYTES_MAX].to_owned()]);
        let cyrillic = words(&"ж".repeat(100), 9);
        assert_eq!(cyrillic[0].len(), WORD_BYTES_MAX);
        let many: String = (0..100).map(|n| format!("w{n:03} ")).collect();
        let words = words(&many, 10);
        assert_eq!(words.len(), 10);
        assert_eq!(words.last().map(String::as_str), Some("w009"));
    }

    #[test]
    fn every_word_must_be_there_and_may_be_longer() {
        let message = words("Wherefore art thou Romeo? Слова, слова. 東京 a", 100);
        for (text, want) in [
            ("romeo", Some(true)),
            ("ROM where", Some(true)),
            ("romeos", Some(false)),
            ("слов", Some(true)),
            ("meo", Some(false)),
            ("romeo juliet", Some(false)),
            ("a", Some(true)),
            // One letter stands for itself alone.
            ("t", Some(false)),
            ("京", Some(true)),
            ("大", Some(false)),
            ("\"\"", None),
            ("'; DROP TABLE text; --", Some(false)),
        ] {
            let asked = question(text).map(|q| found(&q, &message));
            assert_eq!(asked, want, "{text}");
        }
    }
}
