//! Strings compared otherwise than byte by byte: regardless of case, and with wildcards. Takes time in proportion to
//! the two strings; must never happen here: backtracking, or a copy of the event's string.

/// The most `*` in one wildcard.
pub(super) const STARS_MAX: usize = 32;

/// A string whose case does not count. Letters are folded one by one, so `straße` is not `STRASSE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caseless(String);

impl Caseless {
    pub(super) fn new(text: &str) -> Self {
        Self(text.chars().map(fold).collect())
    }

    /// The folded string: equal for strings that differ in nothing but case.
    pub(super) fn folded(&self) -> &str {
        &self.0
    }

    pub(super) fn equals(&self, text: &str) -> bool {
        self.0.chars().eq(text.chars().map(fold))
    }

    pub(super) fn starts(&self, text: &str) -> bool {
        let mut letters = text.chars();
        self.0.chars().all(|letter| letters.next().map(fold) == Some(letter))
    }

    pub(super) fn ends(&self, text: &str) -> bool {
        let mut letters = text.chars().rev();
        self.0.chars().rev().all(|letter| letters.next().map(fold) == Some(letter))
    }
}

/// The lower case of a letter, where that is one letter.
fn fold(letter: char) -> char {
    if letter.is_ascii() {
        return letter.to_ascii_lowercase();
    }
    let mut lower = letter.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(one), None) => one,
        (_, _) => letter,
    }
}

/// A string in which `*` stands for any run of characters, also none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wildcard {
    /// What the string begins with: all before the first `*`.
    head: String,
    /// What follows each `*`; the last one ends the string. Empty when there is no `*`.
    rest: Vec<String>,
}

impl Wildcard {
    /// Parses a wildcard, in which `\*` and `\\` are a star and a backslash. The error says what would be right.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = vec![String::new()];
        let mut letters = text.chars();
        let mut after_star = false;
        while let Some(letter) = letters.next() {
            let literal = match letter {
                '*' if after_star => {
                    return Err("`**` says no more than `*`: write one".to_owned());
                }
                '*' => {
                    pieces.push(String::new());
                    after_star = true;
                    continue;
                }
                '\\' => match letters.next() {
                    Some(escaped @ ('*' | '\\')) => escaped,
                    Some(_) | None => {
                        return Err("a backslash stands before `*` or another backslash only".to_owned());
                    }
                },
                other => other,
            };
            after_star = false;
            if let Some(piece) = pieces.last_mut() {
                piece.push(literal);
            }
        }
        let rest = pieces.split_off(1);
        if rest.len() > STARS_MAX {
            return Err(format!("a wildcard has at most {STARS_MAX} `*`"));
        }
        Ok(Self { head: pieces.concat(), rest })
    }

    /// What every matching string begins with.
    pub(super) fn head(&self) -> &str {
        &self.head
    }

    /// What every matching string ends with; `None` without any `*`, where [`Wildcard::head`] is the whole string.
    pub(super) fn tail(&self) -> Option<&str> {
        self.rest.last().map(String::as_str)
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let Some((tail, middle)) = self.rest.split_last() else {
            return text == self.head;
        };
        let inner = text.strip_prefix(self.head.as_str()).and_then(|text| text.strip_suffix(tail.as_str()));
        let Some(mut inner) = inner else {
            return false;
        };
        // Taking the first place of each piece leaves the most for those after it, so nothing is ever tried again.
        for piece in middle {
            let Some(at) = inner.find(piece.as_str()) else {
                return false;
            };
            inner = inner.get(at + piece.len()..).unwrap_or_default();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The plain definition, by trying every split.
    fn by_trial(wildcard: &[char], text: &[char]) -> bool {
        match wildcard {
            [] => text.is_empty(),
            ['*', rest @ ..] => (0..=text.len()).any(|taken| by_trial(rest, &text[taken..])),
            ['\\', letter, rest @ ..] | [letter, rest @ ..] => {
                text.first() == Some(letter) && by_trial(rest, &text[1..])
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn wildcards_match_as_trying_every_split_does(
            wildcard in r"\*?((a|b|é|\\\*|\\\\)\*?){0,6}", text in r"[ab]{0,6}[abé*\\]{0,4}",
        ) {
            let letters = |text: &str| text.chars().collect::<Vec<_>>();
            let parsed = Wildcard::parse(&wildcard).unwrap();
            prop_assert_eq!(parsed.matches(&text), by_trial(&letters(&wildcard), &letters(&text)));
        }

        #[test]
        fn case_never_counts(text in "[a-zA-ZäöüÄÖÜéÉß]{0,6}", more in "[a-zA-Zé]{0,3}") {
            let caseless = Caseless::new(&text);
            let other: String = text
                .chars()
                .map(|c| if c == 'ß' { c } else if c.is_lowercase() { c.to_uppercase().next().unwrap() } else { fold(c) })
                .collect();
            prop_assert!(caseless.equals(&other));
            let (longer, later) = (format!("{other}{more}"), format!("{more}{other}"));
            prop_assert!(caseless.starts(&longer));
            prop_assert!(caseless.ends(&later));
            prop_assert_eq!(caseless.equals(&longer), more.is_empty());
        }
    }
}
