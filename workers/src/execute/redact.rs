//! Takes a step's secrets out of what the step writes, before anything of it is kept, sent or quoted: as they are, and in
//! the forms that programs print them in. Must never happen here: a piece of a secret let go because the rest of it has
//! not been read yet.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use refit_workflows::wire::SecretValue;
use serde_json::Value;

/// The shortest form that is looked for, in bytes.
const FORM_BYTES_MIN: usize = 4;
/// A line of a secret of several lines is looked for by itself from this length on, in bytes.
const LINE_BYTES_MIN: usize = 8;
/// What is looked for first, in bytes: a form that begins so is compared as a whole then.
const HEAD_BYTES: usize = 32;

/// RFC 3986, section 2.3: what need not be encoded.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Python's `quote` leaves slashes.
const WITH_SLASH: &AsciiSet = &UNRESERVED.remove(b'/');
/// JavaScript's `encodeURIComponent`.
const COMPONENT: &AsciiSet = &UNRESERVED.remove(b'!').remove(b'\'').remove(b'(').remove(b')').remove(b'*');

/// Knows the secrets of one attempt. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redactor(Option<Arc<Forms>>);

/// All forms of all secrets.
struct Forms {
    /// Sorted.
    forms: Vec<Form>,
    /// The heads of the forms, in their order.
    heads: AhoCorasick,
    /// Which bytes forms begin with.
    begins: [bool; 256],
    longest: usize,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Form {
    text: Vec<u8>,
    /// What stands in its place.
    mark: Arc<str>,
}

impl std::fmt::Debug for Forms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} forms of secrets", self.forms.len())
    }
}

impl Redactor {
    /// # Errors
    /// The secrets are more than can be looked for.
    pub(crate) fn new(secrets: &BTreeMap<String, SecretValue>) -> Result<Self, String> {
        let mut all = BTreeMap::new();
        for (name, secret) in secrets {
            let mark: Arc<str> = format!("***{name}***").into();
            let whole = secret.reveal();
            let lines = whole.lines().map(str::trim).filter(|line| line.len() >= LINE_BYTES_MIN);
            for text in std::iter::once(whole).chain(lines) {
                for form in forms_of(text) {
                    all.entry(form).or_insert_with(|| Arc::clone(&mark));
                }
            }
        }
        if all.is_empty() {
            return Ok(Self(None));
        }
        let forms: Vec<Form> = all.into_iter().map(|(text, mark)| Form { text, mark }).collect();
        let heads = AhoCorasick::new(forms.iter().map(|form| &form.text[..form.text.len().min(HEAD_BYTES)]))
            .map_err(|cause| format!("the step's secrets cannot be kept out of its log: {cause}"))?;
        let mut begins = [false; 256];
        for form in &forms {
            begins[usize::from(form.text[0])] = true;
        }
        let longest = forms.iter().map(|form| form.text.len()).max().unwrap_or(0);
        Ok(Self(Some(Arc::new(Forms { forms, heads, begins, longest }))))
    }

    /// Text that is complete, without the secrets.
    pub(crate) fn text(&self, text: &str) -> String {
        match &self.0 {
            None => text.to_owned(),
            Some(forms) => {
                let (clear, _) = forms.replace(text.as_bytes(), 0, text.len());
                String::from_utf8_lossy(&clear).into_owned()
            }
        }
    }

    /// A value without the secrets in its texts and keys.
    pub(crate) fn value(&self, value: Value) -> Value {
        if self.0.is_none() {
            return value;
        }
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Array(items) => items.into_iter().map(|item| self.value(item)).collect(),
            Value::Object(map) => {
                map.into_iter().map(|(key, value)| (self.text(&key), self.value(value))).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
        }
    }

    /// For one stream of bytes.
    pub(crate) fn stream(&self) -> Redaction {
        Redaction { redactor: self.clone(), held: Vec::new(), covered: 0 }
    }
}

/// A stream of bytes on its way: what may be the beginning of a secret is held back until it is known.
#[derive(Debug)]
pub(crate) struct Redaction {
    redactor: Redactor,
    held: Vec<u8>,
    /// So many bytes of `held` belong to a secret whose mark is out already; another may begin among them.
    covered: usize,
}

impl Redaction {
    /// Takes bytes in; answers with those that can be let go.
    pub(crate) fn push<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(forms) = &self.redactor.0 else { return Cow::Borrowed(bytes) };
        self.held.extend_from_slice(bytes);
        let decided = forms.decided(&self.held);
        let (clear, taken) = forms.replace(&self.held, self.covered, decided);
        self.held.drain(..decided);
        self.covered = taken.saturating_sub(decided);
        Cow::Owned(clear)
    }

    /// Nothing more comes: what was held back.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let (held, covered) = (std::mem::take(&mut self.held), std::mem::take(&mut self.covered));
        match &self.redactor.0 {
            None => held,
            Some(forms) => forms.replace(&held, covered, held.len()).0,
        }
    }
}

impl Forms {
    /// Up to where it is known what the bytes are: behind it, all of them may be the beginning of a form.
    fn decided(&self, bytes: &[u8]) -> usize {
        let from = (bytes.len() + 1).saturating_sub(self.longest);
        (from..bytes.len())
            .find(|&at| self.begins[usize::from(bytes[at])] && self.is_beginning(&bytes[at..]))
            .unwrap_or(bytes.len())
    }

    /// Whether some form begins with these bytes and goes on.
    fn is_beginning(&self, bytes: &[u8]) -> bool {
        let at = self.forms.partition_point(|form| form.text.as_slice() <= bytes);
        self.forms.get(at).is_some_and(|form| form.text.starts_with(bytes))
    }

    /// The bytes from `covered` to `decided` without the forms that begin before `decided`, and where the last of these
    /// ends.
    fn replace(&self, bytes: &[u8], covered: usize, decided: usize) -> (Vec<u8>, usize) {
        let mut found: Vec<(usize, &Form)> = self
            .heads
            .find_overlapping_iter(bytes)
            .filter(|head| head.start() < decided)
            .map(|head| (head.start(), &self.forms[head.pattern().as_usize()]))
            .filter(|(start, form)| bytes[*start..].starts_with(&form.text))
            .collect();
        found.sort_by_key(|(start, form)| (*start, Reverse(form.text.len())));
        let mut clear = Vec::with_capacity(decided);
        let mut taken = covered;
        for (start, form) in found {
            let end = start + form.text.len();
            if start >= taken {
                clear.extend_from_slice(&bytes[taken..start]);
                clear.extend_from_slice(form.mark.as_bytes());
            }
            // One that begins inside another is covered with it.
            taken = taken.max(end);
        }
        if taken < decided {
            clear.extend_from_slice(&bytes[taken..decided]);
        }
        (clear, taken)
    }
}

/// What a text looks like where programs print it.
fn forms_of(text: &str) -> BTreeSet<Vec<u8>> {
    let mut forms = BTreeSet::from([text.as_bytes().to_vec()]);
    for set in [UNRESERVED, WITH_SLASH, COMPONENT] {
        let encoded = percent_encode(text.as_bytes(), set).to_string();
        for form in [encoded.replace("%20", "+"), encoded] {
            forms.insert(lower_escapes(&form).into_bytes());
            forms.insert(form.into_bytes());
        }
    }
    let json = Value::from(text).to_string();
    forms.insert(json.as_bytes()[1..json.len() - 1].to_vec());
    for before in 0..3 {
        forms.insert(base64_inside(&STANDARD_NO_PAD, text, before));
        forms.insert(base64_inside(&URL_SAFE_NO_PAD, text, before));
    }
    forms.retain(|form| form.len() >= FORM_BYTES_MIN);
    forms
}

/// The characters that are always the same when the text stands in something encoded as base64, `before` bytes behind a
/// multiple of three, whatever surrounds it.
fn base64_inside(alphabet: &base64::engine::GeneralPurpose, text: &str, before: usize) -> Vec<u8> {
    let mut bytes = vec![0; before];
    bytes.extend_from_slice(text.as_bytes());
    let encoded = alphabet.encode(&bytes);
    let (first, end) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
    encoded.as_bytes().get(first..end).unwrap_or_default().to_vec()
}

/// `%2F` as `%2f`.
fn lower_escapes(encoded: &str) -> String {
    let mut lower = String::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some(at) = rest.find('%') {
        let end = (at + 3).min(rest.len());
        lower.push_str(&rest[..at]);
        lower.push_str(&rest[at..end].to_ascii_lowercase());
        rest = &rest[end..];
    }
    lower + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn redactor(secrets: &[(&str, &str)]) -> Redactor {
        let secrets = secrets.iter().map(|(name, text)| ((*name).to_owned(), SecretValue::new(*text)));
        Redactor::new(&secrets.collect()).unwrap()
    }

    /// What comes out of a stream that is written in these pieces.
    fn streamed(redactor: &Redactor, pieces: &[&[u8]]) -> Vec<u8> {
        let mut stream = redactor.stream();
        let mut out: Vec<u8> = pieces.iter().flat_map(|piece| stream.push(piece).into_owned()).collect();
        out.extend(stream.finish());
        out
    }

    #[test]
    fn every_form_that_programs_print_is_found() {
        let redactor = redactor(&[("KEY", "pä ss/w?rd+\"7\"")]);
        for form in [
            "pä ss/w?rd+\"7\"",
            "p%C3%A4%20ss%2Fw%3Frd%2B%227%22",
            "p%c3%a4%20ss%2fw%3frd%2b%227%22",
            "p%C3%A4+ss%2Fw%3Frd%2B%227%22",
            "p%C3%A4%20ss/w%3Frd%2B%227%22",
            "pä ss/w?rd+\\\"7\\\"",
        ] {
            assert_eq!(redactor.text(&format!("a={form};")), "a=***KEY***;", "{form}");
        }
        for around in ["", "u:", "user:", "a b"] {
            let plain = format!("{around}pä ss/w?rd+\"7\"!");
            for encoded in [STANDARD_NO_PAD.encode(&plain), URL_SAFE_NO_PAD.encode(&plain)] {
                let out = redactor.text(&encoded);
                assert!(out.contains("***KEY***") && out.len() < encoded.len(), "{plain}: {encoded} → {out}");
            }
        }
    }

    #[test]
    fn a_line_of_a_secret_of_several_lines_is_one_too() {
        let redactor = redactor(&[("PEM", "-----BEGIN-----\nMIIEpAIBAAKCAQEA\nshort\n-----END-----")]);
        assert_eq!(redactor.text("x MIIEpAIBAAKCAQEA y short"), "x ***PEM*** y short");
        assert_eq!(redactor.text("-----BEGIN-----\nMIIEpAIBAAKCAQEA\nshort\n-----END-----"), "***PEM***");
    }

    #[test]
    fn only_what_may_be_a_beginning_is_held_back() {
        let redactor = redactor(&[("A", "secret-one"), ("B", "one-and-more")]);
        let mut stream = redactor.stream();
        assert_eq!(&*stream.push(b"a line\n"), b"a line\n");
        assert_eq!(&*stream.push(b"no secre"), b"no ");
        assert_eq!(&*stream.push(b"ts here\n"), b"secrets here\n");
        assert_eq!(&*stream.push(b"secret-one"), b"***A***");
        assert_eq!(&*stream.push(b"-and-more."), b".", "the other began inside it");
        assert_eq!(&*stream.push(b"sec"), b"");
        assert_eq!(stream.finish(), b"sec");
    }

    #[test]
    fn values_are_redacted_in_their_depth() {
        let value = serde_json::json!({"a hunter22": ["x", {"b": "my hunter22"}], "n": 5});
        let expected = serde_json::json!({"a ***P***": ["x", {"b": "my ***P***"}], "n": 5});
        assert_eq!(redactor(&[("P", "hunter22")]).value(value), expected);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_split_lets_a_secret_through(
            secret in "[a-c%/+=ä\n]{4,40}",
            around in proptest::collection::vec("[a-c%/+=\n]{0,12}", 2..6),
            form in 0..8usize,
            cuts in proptest::collection::vec(0..400usize, 0..12),
        ) {
            let redactor = redactor(&[("S", &secret)]);
            let mut text = Vec::new();
            for part in &around {
                text.extend_from_slice(part.as_bytes());
                match form {
                    0..3 => text.extend(base64_inside(&STANDARD_NO_PAD, &secret, form)),
                    3..6 => text.extend(base64_inside(&URL_SAFE_NO_PAD, &secret, form - 3)),
                    6 => text.extend(percent_encode(secret.as_bytes(), UNRESERVED).to_string().into_bytes()),
                    _ => text.extend_from_slice(secret.as_bytes()),
                }
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            let out = streamed(&redactor, &pieces);
            prop_assert_eq!(&out, &streamed(&redactor, &[&text]), "the cuts make no difference");
            for form in forms_of(&secret) {
                let there = out.windows(form.len()).any(|window| window == form);
                prop_assert!(!there, "{:?} in {:?}", String::from_utf8_lossy(&form), String::from_utf8_lossy(&out));
            }
        }

        #[test]
        fn what_holds_no_secret_is_untouched(text in proptest::collection::vec(any::<u8>(), 0..300), cut in 0..300usize) {
            let redactor = redactor(&[("S", "\u{1f511}never-in-random-bytes")]);
            let cut = cut.min(text.len());
            prop_assert_eq!(streamed(&redactor, &[&text[..cut], &text[cut..]]), text);
        }
    }
}
