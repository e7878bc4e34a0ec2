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

/// An alias that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnfitAlias {
    /// There is no such model.
    #[error("--model-alias {name}=… names a model that --model doesn't; its names are: {known}")]
    NoModel {
        /// The alias.
        name: String,
        /// The models.
        known: String,
    },
    /// It is a name already.
    #[error("--model-alias {0}=… gives a name that is a model's or another alias's already")]
    Twice(String),
}

impl ModelNames {
    /// These models, in order of preference, and aliases of them.
    ///
    /// # Errors
    /// An alias names a model that isn't one of them, or is the name of one, or stands twice.
    pub fn new<'a>(models: impl IntoIterator<Item = &'a str>, aliases: &[Alias]) -> Result<Self, UnfitAlias> {
        let models: Vec<Arc<str>> = models.into_iter().map(Arc::from).collect();
        let mut names = Self { models, aliases: BTreeMap::new() };
        for Alias { name, model } in aliases {
            if names.aliases.contains_key(name) || names.named(name).is_some() {
                return Err(UnfitAlias::Twice(name.clone()));
            }
            let target = names
                .named(model)
                .ok_or_else(|| UnfitAlias::NoModel { name: name.clone(), known: names.known().join(", ") })?;
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

    /// The names that can be asked for: where there are several models that for all, the models', aliases. A model whose name is
    /// a server's address goes by its aliases alone, where it has one: its readers needn't know the address.
    pub fn known(&self) -> Vec<&str> {
        let all = (self.models.len() > 1).then_some(DEFAULT);
        let aliases = self.aliases.iter().filter(|(name, _)| *name != ANY);
        let has_alias = |model: &Arc<str>| aliases.clone().any(|(_, target)| target.as_ref() == Some(model));
        let models = self.models.iter().filter(|model| !(model.contains("://") && has_alias(model)));
        let names = aliases.clone().map(|(name, _)| name.as_str());
        all.into_iter().chain(models.map(|name| &**name)).chain(names).collect()
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

    fn names(models: &[&str], aliases: &[&str]) -> Result<ModelNames, UnfitAlias> {
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
        assert_eq!(names.known(), ["default", "a", "openai:b", "both", "gpt"]);
        let url = "http://10.0.0.5:8000/v1#llama";
        assert_eq!(self::names(&[url], &[]).unwrap().known(), [url]);
        assert_eq!(self::names(&[url], &["*=default", &format!("llama={url}")]).unwrap().known(), ["llama"]);
    }

    #[test]
    fn an_unknown_name_is_told_the_known_ones() {
        let problem = names(&["a"], &["b=a"]).unwrap().resolve("c").unwrap_err();
        assert_eq!((problem.status(), problem.param()), (404, Some("model")));
        assert!(problem.detail().ends_with("the names are: a, b"), "{}", problem.detail());
        assert!(names(&["a"], &["b=c"]).unwrap_err().to_string().contains("b=…"));
        for twice in [&["a=a"][..], &["b=a", "b=a"]] {
            assert!(matches!(names(&["a"], twice), Err(UnfitAlias::Twice(_))), "{twice:?}");
        }
    }
}
