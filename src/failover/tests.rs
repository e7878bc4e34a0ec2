//! Tests of the plan and of what answers are worth.

use super::*;
use crate::config::tests::config;
use crate::route::Call;
use crate::route::tests::{ID, call};

const TWO: &str = "a=https://a.example, b=https://b.example";
const FOREIGN: &str = "x=https://x.example/v1/chat, y=https://y.example/v1/chat";

fn settings(origins: &str, shared: bool) -> Config {
    let shared = if shared { "true" } else { "false" };
    config(&[("ORIGINS", origins), ("SHARED_JOURNAL", shared)])
}

fn cursor(text: &str) -> Option<Cursor> {
    match call("GET", "/simple", &[("last-event-id", text)]) {
        Ok(Call::Start(start)) => start.cursor,
        other => panic!("{text}: {other:?}"),
    }
}

fn stream(id: &str) -> StreamId {
    cursor(id).and_then(|cursor| cursor.stream).expect("an id")
}

fn id_of(origin: &str) -> String {
    ID.replacen("a-", &[origin, "-"].concat(), 1)
}

fn names(plan: Result<Plan<'_>, Problem>) -> Result<Vec<&str>, u16> {
    plan.map(|plan| plan.origins.iter().map(|origin| origin.name.as_str()).collect())
        .map_err(|problem| problem.status())
}

fn answered<'a>(status: u16, content_type: &'a str, content_encoding: &'a str) -> AnswerHead<'a> {
    AnswerHead {
        status,
        content_type: Some(content_type).filter(|text| !text.is_empty()),
        content_encoding: Some(content_encoding).filter(|text| !text.is_empty()),
        problem: None,
    }
}

fn assert_refused(answers: &[AnswerHead], is_expected: fn(&Refusal) -> bool) {
    let config = settings(TWO, false);
    let plan = Plan::start(&config, None, None).expect("a plan");
    for answer in answers {
        let worth = plan.judge(answer);
        assert!(worth.as_ref().is_err_and(is_expected), "{answer:?}: {worth:?}");
    }
}

#[test]
fn a_start_asks_the_origins_in_their_order() {
    let config = settings(TWO, false);
    let plan = Plan::start(&config, None, None);
    assert!(plan.as_ref().is_ok_and(|plan| plan.may_begin() && plan.wants_key()));
    assert_eq!(names(plan), Ok(vec!["a", "b"]));
}

#[test]
fn a_stream_is_asked_of_the_origin_that_its_id_names() {
    let config = settings(TWO, false);
    assert_eq!(names(Plan::stream(&config, &stream(&id_of("b")))), Ok(vec!["b"]));
    let by_cursor = cursor(&format!("{}.4", id_of("b")));
    let plan = Plan::start(&config, None, by_cursor.as_ref());
    assert!(plan.as_ref().is_ok_and(|plan| !plan.may_begin()));
    assert_eq!(names(plan), Ok(vec!["b"]));
}

#[test]
fn with_a_shared_journal_a_stream_is_asked_of_all_the_named_one_first() {
    let config = settings("a=https://a.example,b=https://b.example,c=https://c.example", true);
    let order = |id: &str| names(Plan::stream(&config, &stream(id)));
    assert_eq!(order(&id_of("c")), Ok(vec!["c", "a", "b"]));
    assert_eq!(order(&id_of("zz")), Ok(vec!["a", "b", "c"]));
}

#[test]
fn a_stream_of_an_unknown_origin_is_not_found_unless_there_is_but_one() {
    let two = settings(TWO, false);
    assert_eq!(names(Plan::stream(&two, &stream(&id_of("zz")))), Err(404));
    let one = settings("a=https://a.example", false);
    assert_eq!(names(Plan::stream(&one, &stream(&id_of("zz")))), Ok(vec!["a"]));
}

#[test]
fn a_foreign_cursor_goes_to_one_foreign_server_and_counts_as_a_start() {
    for origins in [FOREIGN, &[TWO, FOREIGN].join(",")] {
        let config = settings(origins, false);
        let cursor = cursor("42");
        let plan = Plan::start(&config, None, cursor.as_ref());
        assert!(plan.as_ref().is_ok_and(|plan| plan.may_begin() && !plan.wants_key()));
        assert_eq!(names(plan), Ok(vec!["x"]), "{origins}");
    }
    assert_eq!(names(Plan::start(&settings(TWO, false), None, cursor("42").as_ref())), Err(400));
    assert_eq!(names(Plan::stream(&settings(FOREIGN, false), &stream(ID))), Err(404));
}

/// It can't have come from the foreign server, which would take the request for a start, and be paid for it.
#[test]
fn an_own_cursor_never_goes_to_a_foreign_server_where_there_are_own_origins() {
    let cursor = cursor(&format!("{}.4", id_of("zz")));
    let mixed = settings(&[TWO, FOREIGN].join(","), false);
    assert_eq!(names(Plan::start(&mixed, None, cursor.as_ref())), Err(404));
    let one = settings(&["a=https://a.example", FOREIGN].join(","), false);
    let plan = Plan::start(&one, None, cursor.as_ref());
    assert!(plan.as_ref().is_ok_and(|plan| !plan.may_begin()));
    assert_eq!(names(plan), Ok(vec!["a"]));
    let foreign = settings(FOREIGN, false);
    assert_eq!(names(Plan::start(&foreign, None, cursor.as_ref())), Ok(vec!["x"]));
}

#[test]
fn a_key_is_added_only_to_a_start_that_two_own_origins_may_be_asked_for() {
    let wants = |origins: &str, cursor: Option<Cursor>| {
        Plan::start(&settings(origins, true), None, cursor.as_ref()).expect("a plan").wants_key()
    };
    assert!(wants(TWO, None));
    assert!(!wants(TWO, cursor(ID)));
    assert!(!wants(FOREIGN, None));
    assert!(!wants("a=https://a.example", None));
}

#[test]
fn an_origin_that_is_not_there_is_passed_over() {
    assert_refused(
        &[
            answered(522, "text/html", ""),
            answered(530, "", ""),
            answered(502, "text/html", "gzip"),
            answered(503, "", ""),
        ],
        |refusal| matches!(refusal, Refusal::Next(problem) if problem.status() == 502),
    );
}

#[test]
fn an_answer_that_is_neither_a_stream_nor_a_problem_is_passed_over() {
    assert_refused(
        &[
            answered(500, "text/html", ""),
            answered(302, "", ""),
            answered(404, "application/problem+json", "br"),
            answered(404, "text/plain", ""),
            answered(500, "text/event-stream", ""),
            answered(401, "application/problem+json", ""),
        ],
        |refusal| matches!(refusal, Refusal::Next(problem) if problem.status() == 502),
    );
}

/// To ask another origin would be to pay twice.
#[test]
fn a_success_that_is_no_stream_is_the_end_of_it_because_a_generation_may_have_begun() {
    assert_refused(
        &[
            answered(200, "text/html", ""),
            answered(200, "application/json", ""),
            answered(200, "", ""),
            answered(200, "text/event-stream", "gzip"),
            answered(200, "application/problem+json", ""),
            answered(201, "text/event-stream", ""),
        ],
        |refusal| matches!(refusal, Refusal::Final(problem) if problem.status() == 502),
    );
}

#[test]
fn streams_and_no_content_are_piped_and_problems_retold() {
    let config = settings(TWO, false);
    let plan = Plan::start(&config, None, None).expect("a plan");
    for answer in [
        answered(200, "text/event-stream; charset=utf-8", "identity"),
        answered(200, "text/event-stream", "Identity"),
        answered(200, "text/event-stream", "none"),
        answered(200, "text/event-stream", "identity, None"),
        answered(204, "", ""),
    ] {
        assert_eq!(plan.judge(&answer), Ok(Worth::Pipe), "{answer:?}");
    }
    for status in [400, 424, 429, 500, 502, 503, 504] {
        let answer = answered(status, "application/problem+json; charset=utf-8", "");
        assert_eq!(plan.judge(&answer), Ok(Worth::Retell), "{answer:?}");
    }
}

/// A proxy that waited in vain has passed the start on.
#[test]
fn a_proxys_timeout_is_one_and_no_absence() {
    let expect = |shared, expected: fn(Problem) -> Refusal| {
        let config = settings(TWO, shared);
        let plan = Plan::start(&config, None, None).expect("a plan");
        for answer in [answered(504, "text/html", ""), answered(524, "text/html", ""), answered(504, "", "")] {
            assert_eq!(plan.judge(&answer), Err(expected(Problem::origin_timeout())), "{answer:?}");
        }
    };
    expect(false, Refusal::Final);
    expect(true, Refusal::Next);
}

#[test]
fn a_problem_is_retold_by_its_listed_members_with_the_path_that_was_asked_for() {
    let retold = |document| ToldProblem::read(document).expect("an object").to_json(502, "/simple");
    let origins = Problem::no_such_prompt().document("/prompts/simple");
    let told = ToldProblem::read(origins.as_bytes()).expect("an object");
    assert_eq!(told.to_json(404, "/simple"), Problem::no_such_prompt().document("/simple"));
    assert_eq!(
        retold(br#"{"type":"/x","title":"X","detail":7,"debug":"SELECT","retryable":true}"#),
        r#"{"type":"/x","title":"X","status":502,"detail":"","instance":"/simple","retryable":true}"#
    );
    assert!(retold(b"{}").contains("\"about:blank\""));
    for document in [&b"nope"[..], b"[]", b"", b"\xff"] {
        assert!(ToldProblem::read(document).is_none());
    }
}

#[test]
fn only_our_own_overloaded_is_overloaded() {
    let is_overloaded = |document: &[u8]| ToldProblem::read(document).is_some_and(|told| told.is_overloaded());
    assert!(is_overloaded(br#"{"type":"/problems/overloaded","status":503}"#));
    assert!(is_overloaded(br#"{"type":"\/problems\/overloaded"}"#));
    for document in [&br#"{"type":"/problems/journal"}"#[..], br#"{"title":"/problems/overloaded"}"#, b"nope"] {
        assert!(!is_overloaded(document));
    }
}

#[test]
fn a_start_with_a_key_asks_the_origins_in_an_order_that_follows_from_the_key() {
    let three = "a=https://a.example, x=https://x.example/v1/chat, b=https://b.example, c=https://c.example";
    let order = |origins: &str, key: u32, shared| {
        let config = settings(origins, shared);
        let key = format!("a-key-of-the-tests-{key}").parse().expect("a key");
        let plan = Plan::start(&config, Some(&key), None).expect("a plan");
        plan.origins.iter().map(|origin| origin.name.to_string()).collect::<Vec<_>>()
    };
    let mut first = std::collections::BTreeMap::<_, u32>::new();
    for key in 0..300 {
        let asked = order(three, key, false);
        assert_eq!(asked, order(three, key, false));
        assert_eq!(asked[1], "x", "a foreign server keeps its rank");
        // Without an origin the order of the others stays: only its own starts go elsewhere.
        let kept: Vec<_> = asked.iter().filter(|name| !["x", "c"].contains(&name.as_str())).cloned().collect();
        assert_eq!(order(TWO, key, false), kept);
        *first.entry(asked[0].clone()).or_default() += 1;
        assert_eq!(order(three, key, true), ["a", "x", "b", "c"], "any origin finds the stream in a shared journal");
    }
    assert!(first.len() == 3 && first.values().all(|starts| *starts > 70), "{first:?}");
}

#[test]
fn where_the_settings_name_no_origin_nothing_is_asked() {
    let config = config(&[("ORIGINS", "a")]);
    let problems = [
        Plan::start(&config, None, None),
        Plan::start(&config, None, cursor("42").as_ref()),
        Plan::stream(&config, &stream(ID)),
    ];
    for problem in problems {
        assert_eq!(problem.err(), Some(Problem::misconfigured()));
    }
}

#[test]
fn a_hanging_origin_is_given_up_for_another_only_with_a_shared_journal() {
    let config = settings(TWO, false);
    let plan = Plan::start(&config, None, None).expect("a plan");
    assert_eq!(plan.timed_out(), Refusal::Final(Problem::origin_timeout()));
    let config = settings(TWO, true);
    let plan = Plan::start(&config, None, None).expect("a plan");
    assert_eq!(plan.timed_out(), Refusal::Next(Problem::origin_timeout()));
}

#[test]
fn a_stream_whose_origin_is_away_may_be_asked_for_again() {
    let config = settings(TWO, false);
    let plan = Plan::stream(&config, &stream(ID)).expect("a plan");
    assert_eq!(plan.unreached(), Refusal::Next(Problem::stream_away()));
    assert_eq!(plan.judge(&answered(522, "text/html", "")), Err(Refusal::Next(Problem::stream_away())));
}

fn told(status: u16, content_type: &'static str, problem: &'static str) -> AnswerHead<'static> {
    AnswerHead { problem: Some(problem), ..answered(status, content_type, "") }
}

#[test]
fn a_conversation_is_held_with_own_origins_alone() {
    let config = settings(&[FOREIGN, TWO].join(","), false);
    for api in [Api::Own, Api::OpenAi] {
        let plan = Plan::chat(&config, api, None);
        assert!(plan.as_ref().is_ok_and(|plan| plan.may_begin() && plan.wants_key()));
        assert_eq!(names(plan), Ok(vec!["a", "b"]));
    }
    let models = Plan::models(&config);
    assert!(models.as_ref().is_ok_and(|plan| !plan.may_begin() && !plan.wants_key()));
    assert_eq!(names(models), Ok(vec!["a", "b"]));
    let foreign = settings(FOREIGN, false);
    assert_eq!(Plan::chat(&foreign, Api::OpenAi, None).err(), Some(Problem::no_chats()));
    assert_eq!(Plan::models(&foreign).err(), Some(Problem::no_chats()));
    let wrong = settings("a", false);
    assert_eq!(Plan::chat(&wrong, Api::Own, None).err(), Some(Problem::misconfigured()));
    assert_eq!(Plan::models(&wrong).err(), Some(Problem::misconfigured()));
}

#[test]
fn a_conversation_with_a_key_asks_the_origins_in_the_keys_order() {
    let key = |n: u32| format!("a-key-of-the-tests-{n}").parse().expect("a key");
    let order = |shared, n| {
        let config = settings(TWO, shared);
        names(Plan::chat(&config, Api::OpenAi, Some(&key(n)))).map(|names| names.concat())
    };
    let orders: std::collections::BTreeSet<_> = (0..50).map(|n| order(false, n)).collect();
    assert_eq!(orders, [Ok("ab".to_owned()), Ok("ba".to_owned())].into());
    assert!((0..50).all(|n| order(true, n) == Ok("ab".to_owned())));
}

#[test]
fn a_completion_is_a_stream_or_a_document_and_its_errors_are_piped() {
    let config = settings(TWO, false);
    let completion = Plan::chat(&config, Api::OpenAi, None).expect("a plan");
    let models = Plan::models(&config).expect("a plan");
    let json = "application/json; charset=utf-8";
    assert_eq!(completion.judge(&answered(200, "text/event-stream", "")), Ok(Worth::Pipe));
    for plan in [&completion, &models] {
        assert_eq!(plan.judge(&answered(200, json, "")), Ok(Worth::Pipe));
        for (status, problem) in
            [(400, "bad-request"), (404, "no-such-model"), (502, "model-broke-off"), (504, "idle-timeout")]
        {
            assert_eq!(plan.judge(&told(status, json, problem)), Ok(Worth::Pipe), "{status}");
        }
        assert_eq!(plan.judge(&told(503, json, "overloaded")), Ok(Worth::PipeAsLast));
        // The edge's secret is at fault, and none of the client's.
        assert_eq!(plan.judge(&told(401, json, "unauthorised")), Err(Refusal::Next(Problem::edge_refused())));
        for unusable in [
            answered(400, json, ""),
            answered(404, "application/problem+json", ""),
            told(404, "application/problem+json", "not-found"),
            told(404, "text/html", "not-found"),
            AnswerHead { content_encoding: Some("gzip"), ..told(400, json, "bad-request") },
            answered(302, json, ""),
        ] {
            assert_eq!(plan.judge(&unusable), Err(Refusal::Next(Problem::unusable_answer())), "{unusable:?}");
        }
        for unreached in [answered(502, json, ""), answered(503, "text/html", ""), answered(522, json, "")] {
            assert_eq!(plan.judge(&unreached), Err(Refusal::Next(Problem::origin_unreachable())), "{unreached:?}");
        }
    }
    for nothing in [answered(204, "", ""), answered(200, "text/html", ""), answered(200, json, "gzip")] {
        assert_eq!(completion.judge(&nothing), Err(Refusal::Final(Problem::unusable_start())), "{nothing:?}");
        assert_eq!(
            models.judge(&nothing),
            Err(Refusal::Next(Problem::unusable_answer())),
            "nothing starts: {nothing:?}"
        );
    }
    assert_eq!(completion.judge(&answered(504, json, "")), Err(Refusal::Final(Problem::origin_timeout())));
    assert_eq!(models.judge(&answered(504, json, "")), Err(Refusal::Next(Problem::origin_timeout())));
}

#[test]
fn an_own_conversation_is_answered_as_a_start_is() {
    let config = settings(TWO, false);
    let plan = Plan::chat(&config, Api::Own, None).expect("a plan");
    assert_eq!(plan.judge(&answered(200, "text/event-stream", "")), Ok(Worth::Pipe));
    assert_eq!(plan.judge(&answered(204, "", "")), Ok(Worth::Pipe));
    assert_eq!(plan.judge(&told(503, "application/problem+json", "overloaded")), Ok(Worth::Retell));
    assert_eq!(plan.judge(&answered(200, "application/json", "")), Err(Refusal::Final(Problem::unusable_start())));
    assert_eq!(
        plan.judge(&told(400, "application/json", "bad-request")),
        Err(Refusal::Next(Problem::unusable_answer()))
    );
}
