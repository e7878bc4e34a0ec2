//! A message's content: a string, or an array of parts.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

use super::text::Text;

pub(super) enum Content<'a, Part> {
    Text(Text<'a>),
    Parts(Vec<Part>),
}

impl<'de: 'a, 'a, Part: Deserialize<'de>> Deserialize<'de> for Content<'a, Part> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrParts<Part>(PhantomData<Part>);

        impl<'de, Part: Deserialize<'de>> Visitor<'de> for TextOrParts<Part> {
            type Value = Content<'de, Part>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of parts")
            }

            fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Content::Text(Text(Cow::Borrowed(bytes))))
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Content::Text(Text(Cow::Owned(bytes.to_vec()))))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = seq.next_element()? {
                    parts.push(part);
                }
                Ok(Content::Parts(parts))
            }
        }

        // As bytes, as [`Text`] is; serde_json offers an array as well then.
        deserializer.deserialize_bytes(TextOrParts(PhantomData))
    }
}
