//! Who holds a key of this edge? The settings hold digests of keys; the keys themselves are stored nowhere.

use sha2::{Digest, Sha256};
use std::fmt;
use subtle::{Choice, ConstantTimeEq};

/// The bytes of a SHA-256 digest (FIPS 180-4).
const DIGEST_BYTES: usize = 32;

/// The bytes of a digest that tell a caller from others: enough for two keys never to meet. Like the digest
/// they give away a key that can be guessed, so keys have to be random.
const CALLER_BYTES: usize = 8;

/// The keys that this edge takes (`EDGE_KEYS`).
#[derive(Default)]
pub struct Keys(Vec<[u8; DIGEST_BYTES]>);

impl Keys {
    /// Reads digests in hexadecimal, with commas or white space between them. Those that are none are left out, and counted; so
    /// is that of an empty key, which anybody shows.
    pub fn parse(list: &str) -> (Self, usize) {
        let is_gap = |character: char| character == ',' || character.is_ascii_whitespace();
        let mut keys = Self::default();
        let mut unfit = 0;
        for item in list.split(is_gap).filter(|item| !item.is_empty()) {
            match digest(item).filter(|digest| digest[..] != Sha256::digest("")[..]) {
                Some(digest) => keys.0.push(digest),
                None => unfit += 1,
            }
        }
        (keys, unfit)
    }

    /// There is no key that this edge takes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose key this is, if it is one of these. How long that takes depends on the key's length and on how many there are.
    pub fn holder(&self, key: &str) -> Option<CallerId> {
        let shown = Sha256::digest(key);
        let is_known = self.0.iter().fold(Choice::from(0), |known, digest| known | digest.ct_eq(&shown));
        bool::from(is_known).then(|| CallerId::of(&shown))
    }
}

/// The digests are not printed: a short key can be found from its own.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// Tells the holder of a key from other callers: the beginning of the key's digest, in hexadecimal.
#[derive(Debug, PartialEq, Eq)]
pub struct CallerId(String);

impl CallerId {
    fn of(digest: &[u8]) -> Self {
        let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
        Self(digest.iter().take(CALLER_BYTES).flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect())
    }

    /// 16 digits, 0-9 and a-f.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn digest(text: &str) -> Option<[u8; DIGEST_BYTES]> {
    let mut digest = [0; DIGEST_BYTES];
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != digest.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(digest)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// `printf %s KEY | sha256sum`
    pub(crate) const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const OTHER: &str = "cb8379ac2098aa165029e3938a51da0bcecfc008fd6795f401178647f96c5b34";
    const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn holder(list: &str, key: &str) -> Option<String> {
        Keys::parse(list).0.holder(key).map(|caller| caller.0)
    }

    #[test]
    fn a_key_is_known_by_its_digest_wherever_that_stands() {
        let caller = Some("ba7816bf8f01cfea".to_owned());
        for list in [ABC, &ABC.to_uppercase(), &format!("{OTHER},{ABC}"), &format!(" {ABC}\n{OTHER}\r\n,")] {
            assert_eq!(holder(list, "abc"), caller, "{list}");
        }
        for key in ["", "ab", "abc ", "ABC", ABC] {
            assert_eq!(holder(ABC, key), None, "{key}");
        }
        assert_eq!(holder("", ""), None);
    }

    #[test]
    fn what_is_no_digest_is_left_out_and_counted() {
        for unfit in ["abc", &ABC[1..], &format!("{ABC}0"), &ABC.replace('b', "g"), &ABC.replacen("ba", "\u{e9}", 1)] {
            let (keys, count) = Keys::parse(&format!("{unfit} {ABC}"));
            assert_eq!((keys.0.len(), count), (1, 1), "{unfit}");
        }
        let (keys, count) = Keys::parse(NOTHING);
        assert!(keys.is_empty() && count == 1 && keys.holder("").is_none());
        let (keys, count) = Keys::parse(" ,, ");
        assert!(keys.is_empty() && count == 0);
    }

    #[test]
    fn digests_are_not_printed() {
        assert_eq!(format!("{:?}", Keys::parse(ABC).0), "Keys(..)");
    }
}
