//! JSON objects of which only some members are read, borrowed from the buffer.
//!
//! Like serde's derive, but for what gateways do: two members of one name, or of two spellings, are no error (the last that
//! isn't `null` counts), and `[]` is an object without members, as PHP writes it.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::text::Text;

/// A form of an object: see [`object!`].
pub(super) trait Object<'de>: Default {
    /// Reads the value of the member that is called `name`, or skips it.
    fn member<A: MapAccess<'de>>(&mut self, name: &[u8], map: &mut A) -> Result<(), A::Error>;
}

/// What a member can be read as. It is read in its place: forms are large, and moving them costs more than reading them.
pub(super) trait Member<'de>: Sized {
    fn read<D: Deserializer<'de>>(place: &mut Option<Self>, deserializer: D) -> Result<(), D::Error>;
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
                use $crate::model::remote::parser::object::Place;
                match name {
                    $($($name)|+ => map.next_value_seed(Place(&mut self.$field)),)+
                    _ => map.next_value::<serde::de::IgnoredAny>().map(drop),
                }
            }
        }

        impl<'de: 'a, 'a> $crate::model::remote::parser::object::Member<'de> for $form<'a> {
            fn read<D: serde::Deserializer<'de>>(place: &mut Option<Self>, deserializer: D) -> Result<(), D::Error> {
                $crate::model::remote::parser::object::read(place.insert(Self::default()), deserializer)
            }
        }

        impl<'de: 'a, 'a> serde::Deserialize<'de> for $form<'a> {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let mut object = Self::default();
                $crate::model::remote::parser::object::read(&mut object, deserializer)?;
                Ok(object)
            }
        }
    };
}

pub(super) use object;

/// Declares what is small, and is read by value.
macro_rules! small {
    ($($type:ty $(=> $parameter:ident)?,)+) => {
        $(impl<'de: 'a, 'a, $($parameter)?> $crate::model::remote::parser::object::Member<'de> for $type
        where
            $type: serde::Deserialize<'de>,
        {
            fn read<D: serde::Deserializer<'de>>(place: &mut Option<Self>, deserializer: D) -> Result<(), D::Error> {
                *place = Some(serde::Deserialize::deserialize(deserializer)?);
                Ok(())
            }
        })+
    };
}

/// Where a member is read to.
pub(super) struct Place<'p, T>(pub(super) &'p mut Option<T>);

impl<'de, T: Member<'de>> DeserializeSeed<'de> for Place<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, T: Member<'de>> Visitor<'de> for Place<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member")
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        T::read(self.0, deserializer)
    }
}

/// Reads an object of this form.
pub(super) fn read<'de, D: Deserializer<'de>, T: Object<'de>>(object: &mut T, deserializer: D) -> Result<(), D::Error> {
    deserializer.deserialize_struct("", &[], Members(object))
}

struct Members<'o, T>(&'o mut T);

impl<'de, T: Object<'de>> Visitor<'de> for Members<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Text<'_>>()? {
            self.0.member(&name.0, &mut map)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        match seq.next_element::<IgnoredAny>()? {
            None => Ok(()),
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
                let mut object = T::default();
                Members(&mut object).visit_map(map)?;
                Ok(Maybe(Some(object)))
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

small! {
    Text<'a>,
    super::value::Raw<'a>,
    super::value::Count,
    super::content::Content<'a, T> => T,
    Box<T> => T,
    Vec<T> => T,
    Maybe<T> => T,
}
