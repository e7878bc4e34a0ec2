//! The names by which clients ask for models.

use std::{collections::BTreeMap, sync::Arc};

use headwater_protocol::Problem;

use crate::config::model::Alias;
pub use crate::config::model::DEFAULT;

/// The name of an alias that stands for every name that isn't known.
const ANY: &str = "*";

/// The models by name, and aliases.
#[derive(Clone, Debug)]
pub struct ModelNames {
    models: Vec<Arc<str>>,
    aliases: BTreeMap<String, Option<Arc<str>>>,
}

/// An alias whose model isn't there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--model-alias {name}=… names a model that --model doesn't; its names are: {known}")]
pub struct UnknownModel {
    name: String,
    known: String,
}

impl ModelNames {
    /// These models, in order of preference, and aliases of them.
    ///
    /// # Errors
    /// An alias names a model that isn't one of them.
    pub fn new<'a>(models: impl IntoIterator<Item = &'a str>, aliases: &[Alias]) -> Result<Self, UnknownModel> {
        let models: Vec<Arc<str>> = models.into_iter().map(Arc::from).collect();
        let mut names = Self { models, aliases: BTreeMap::new() };
        for Alias { name, model } in aliases {
            let target = names
                .named(model)
                .ok_or_else(|| UnknownModel { name: name.clone(), known: names.known().join(", ") })?;
            names.aliases.insert(name.clone(), target);
        }
        Ok(names)
    }

    /// The model that this name or alias stands for; `None` for all of them.
    ///
    /// # Errors
    /// There is no such name.
    pub fn resolve(&self, name: &str) -> Result<Option<Arc<str>>, Problem> {
        let alias = |name: &str| self.aliases.get(name).cloned();
        let known = self.named(name).or_else(|| alias(name)).or_else(|| alias(ANY));
        known.ok_or_else(|| Problem::no_such_model(&self.known()))
    }

    /// The names that can be asked for, without aliases: the models', and where there are several that for all.
    pub fn known(&self) -> Vec<&str> {
        let all = (self.models.len() > 1).then_some(DEFAULT);
        all.into_iter().chain(self.models.iter().map(|name| &**name)).collect()
    }

    fn named(&self, name: &str) -> Option<Option<Arc<str>>> {
        if name == DEFAULT {
            return Some(None);
        }
        self.models.iter().find(|model| ***model == *name).cloned().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(models: &[&str], aliases: &[&str]) -> Result<ModelNames, UnknownModel> {
        let aliases: Vec<Alias> = aliases.iter().map(|alias| alias.parse().unwrap()).collect();
        ModelNames::new(models.iter().copied(), &aliases)
    }

    #[test]
    fn a_name_an_alias_and_any_name_find_their_models() {
        let names = names(&["a", "openai:b"], &["gpt=openai:b", "both=default", "*=a"]).unwrap();
        let resolved = |name: &str| names.resolve(name).unwrap().map(|name| name.to_string());
        assert_eq!(resolved("openai:b").as_deref(), Some("openai:b"));
        assert_eq!(resolved("gpt").as_deref(), Some("openai:b"));
        assert_eq!(resolved("other").as_deref(), Some("a"));
        assert_eq!((resolved("default"), resolved("both")), (None, None));
        assert_eq!(names.known(), ["default", "a", "openai:b"]);
    }

    #[test]
    fn an_unknown_name_is_told_the_known_ones() {
        let problem = names(&["a"], &["b=a"]).unwrap().resolve("c").unwrap_err();
        assert_eq!((problem.status(), problem.param()), (404, Some("model")));
        assert!(problem.detail().ends_with("the names are: a"), "{}", problem.detail());
        assert!(names(&["a"], &["b=c"]).unwrap_err().to_string().contains("b=…"));
    }
}
