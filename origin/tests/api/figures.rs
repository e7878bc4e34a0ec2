//! The figures that the origin tells of its streams.

use headwater_origin_testing::{Origin, events, first_events, id_of, open, spawn_origin, terminal};
use serde_json::json;

#[tokio::test]
async fn the_figures_count_starts_ends_readers_and_what_they_came_for() {
    let origin = spawn_origin(&[]).await;
    let response = open(origin.start(&json!(["a ", "b ", "c"]))).await;
    let id = id_of(&response);
    terminal(&events(response).await);
    terminal(&events(origin.follow(&id).await).await);
    origin.until("running", 0).await;
    let running = open(origin.start(&json!([{ "tokens": 9999, "every_ms": 1 }]))).await;
    let second = id_of(&running);
    drop(first_events(origin.follow(&second).await, 1).await);

    let figures = figures(&origin).await;
    assert_eq!(value(&figures, "headwater_streams_started_total"), "2");
    assert_eq!(value(&figures, "headwater_streams_running"), "1");
    assert_eq!(value(&figures, r#"headwater_readers_attached_total{by="start"}"#), "2");
    assert_eq!(value(&figures, r#"headwater_readers_attached_total{by="resume"}"#), "1");
    assert_eq!(value(&figures, r#"headwater_readers_attached_total{by="replay"}"#), "1");
    assert_ne!(value(&figures, "headwater_journal_bytes"), "0");

    assert_eq!(origin.stop(&second).await, 204);
    origin.until("running", 0).await;
    let figures = self::figures(&origin).await;
    let ended =
        |outcome| format!(r#"headwater_streams_ended_total{{gen_ai_request_model="scripted",outcome="{outcome}"}}"#);
    assert_eq!(value(&figures, &ended("stop")), "1");
    assert_eq!(value(&figures, &ended("stopped")), "1");
    let of_model =
        |name: &str| value(&figures, &format!(r#"{name}_count{{gen_ai_request_model="scripted"}}"#)).to_owned();
    assert_eq!(of_model("gen_ai_client_operation_duration_seconds"), "2");
    assert_eq!(of_model("gen_ai_client_operation_time_to_first_chunk_seconds"), "2");
    assert_ne!(of_model("gen_ai_client_operation_time_per_output_chunk_seconds"), "0");
    let tokens = r#"gen_ai_client_token_usage_sum{gen_ai_request_model="scripted",gen_ai_token_type="output"}"#;
    assert_ne!(value(&figures, tokens), "0");
    drop(running);
    let nobody = async {
        while value(&self::figures(&origin).await, "headwater_readers") != "0" {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), nobody).await.expect("all readers have left");
}

#[tokio::test]
async fn a_start_without_a_place_is_counted() {
    let origin = spawn_origin(&["--generations", "1", "--queue", "0"]).await;
    let _running = open(origin.start(&json!(["a", 60_000]))).await;
    assert_eq!(origin.start(&json!(["b"])).send().await.unwrap().status(), 503);
    assert_eq!(value(&figures(&origin).await, r#"headwater_streams_refused_total{problem="overloaded"}"#), "1");
}

/// The figures as text.
async fn figures(origin: &Origin) -> String {
    let response = origin.figures().await;
    assert_eq!(response.headers()["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = response.text().await.unwrap();
    assert!(text.ends_with("# EOF\n"), "the text is whole");
    text
}

/// The value of a figure, named with its labels.
fn value<'a>(figures: &'a str, name: &str) -> &'a str {
    let line = figures.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("there is no {name} in\n{figures}"))
}
