//! JSON objects of which only some members are read, borrowed from the buffer.
//!
//! Like serde's derive, but for what gateways do: two members of one name, or of two spellings, are no error (the last that
//! isn't `null` counts), and `[]` is an object without members, as PHP writes it.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::text::Text;

/// A form of an object: see [`object!`].
pub(super) trait Object<'de>: Default {
    /// Reads the value of the member that is called `name`, or skips it.
    fn member<A: MapAccess<'de>>(&mut self, name: &[u8], map: &mut A) -> Result<(), A::Error>;
}

/// Declares a form: fields, and the names of the members that they are read from. A field is `None` where its member is
/// `null` or isn't there.
macro_rules! object {
    ($(#[$meta:meta])* struct $form:ident<'a> {
        $($(#[$field_meta:meta])* $field:ident: $type:ty = $($name:literal)|+,)+
    }) => {
        $(#[$meta])*
        #[derive(Default)]
        struct $form<'a> {
            $($(#[$field_meta])* $field: Option<$type>,)+
            _buffer: std::marker::PhantomData<&'a [u8]>,
        }

        impl<'de: 'a, 'a> $crate::model::remote::parser::object::Object<'de> for $form<'a> {
            fn member<A: serde::de::MapAccess<'de>>(&mut self, name: &[u8], map: &mut A) -> Result<(), A::Error> {
                match name {
                    $($($name)|+ => if let Some(value) = map.next_value()? {
                        self.$field = Some(value);
                    },)+
                    _ => drop(map.next_value::<serde::de::IgnoredAny>()?),
                }
                Ok(())
            }
        }

        impl<'de: 'a, 'a> serde::Deserialize<'de> for $form<'a> {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::model::remote::parser::object::read(deserializer)
            }
        }
    };
}

pub(super) use object;

/// An object of this form.
pub(super) fn read<'de, D: Deserializer<'de>, T: Object<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_struct("", &[], Members(PhantomData))
}

struct Members<T>(PhantomData<T>);

impl<'de, T: Object<'de>> Visitor<'de> for Members<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut object = T::default();
        while let Some(name) = map.next_key::<Text<'_>>()? {
            object.member(&name.0, &mut map)?;
        }
        Ok(object)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<T, A::Error> {
        match seq.next_element::<IgnoredAny>()? {
            None => Ok(T::default()),
            Some(_) => Err(A::Error::custom("an array in the place of an object")),
        }
    }
}

/// An object of this form, if the member is one: for members that hold no text.
pub(super) struct Maybe<T>(pub(super) Option<T>);

impl<'de, T: Object<'de>> Deserialize<'de> for Maybe<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Anything<T>(PhantomData<T>);

        impl<'de, T: Object<'de>> Visitor<'de> for Anything<T> {
            type Value = Maybe<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Members(PhantomData).visit_map(map).map(|object| Maybe(Some(object)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                IgnoredAny.visit_seq(seq).map(|_| Maybe(None))
            }

            fn visit_str<E: Error>(self, _: &str) -> Result<Self::Value, E> {
                Ok(Maybe(None))
            }

            fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
                Ok(Maybe(None))
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Maybe(None))
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
                Ok(Maybe(None))
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Maybe(None))
            }
        }

        deserializer.deserialize_any(Anything(PhantomData))
    }
}
