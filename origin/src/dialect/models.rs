//! The list of models, for clients of OpenAI's API and of Anthropic's: one body has the members of both.
//!
//! Sources: <https://platform.openai.com/docs/api-reference/models>, <https://docs.claude.com/en/api/models-list>.

use std::time::{Duration, SystemTime};

use serde::Serialize;

/// Every model that can be asked for.
#[derive(Debug, Serialize)]
pub struct List<'a> {
    object: &'static str,
    data: Vec<Model<'a>>,
    has_more: bool,
    first_id: Option<&'a str>,
    last_id: Option<&'a str>,
}

/// One model.
#[derive(Debug, Serialize)]
pub struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    display_name: &'a str,
    created_at: String,
    lifecycle: &'static str,
}

impl<'a> List<'a> {
    /// The models of these names, there since `created`, seconds since 1970.
    pub fn new(names: &[&'a str], created: u64) -> Self {
        let data = names.iter().map(|name| Model::new(name, created)).collect();
        let (first_id, last_id) = (names.first().copied(), names.last().copied());
        Self { object: "list", data, has_more: false, first_id, last_id }
    }
}

impl<'a> Model<'a> {
    /// The model of this name, there since `created`, seconds since 1970.
    pub fn new(id: &'a str, created: u64) -> Self {
        let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(created)).unwrap_or(SystemTime::UNIX_EPOCH);
        Self {
            id,
            object: "model",
            created,
            owned_by: "headwater",
            kind: "model",
            display_name: id,
            created_at: humantime::format_rfc3339_seconds(at).to_string(),
            lifecycle: "active",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_the_members_of_both_vendors() {
        let list = serde_json::to_string(&List::new(&["demo-model"], 1_795_600_000)).unwrap();
        assert_eq!(
            list,
            r#"{"object":"list","data":[{"id":"demo-model","object":"model","created":1795600000,"owned_by":"headwater","type":"model","display_name":"demo-model","created_at":"2026-11-25T09:46:40Z","lifecycle":"active"}],"has_more":false,"first_id":"demo-model","last_id":"demo-model"}"#
        );
    }
}
