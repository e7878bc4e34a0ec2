//! What the origin does not start with, and how it says so.

use headwater_origin_testing::RedisServer;

use crate::process::{Process, refused};

#[test]
fn what_cannot_be_used_is_one_clear_line() {
    let key = ("OPENAI_API_KEY", "a-key");
    let openai = ["--model", "openai:gpt-5"];
    for (variables, flags, told) in [
        (&[][..], &openai[..], "openai:gpt-5 needs a key; set OPENAI_API_KEY to it"),
        (&[("OPENAI_API_KEY", " ")], &openai, "openai:gpt-5 needs a key; set OPENAI_API_KEY to it"),
        (&[("OPENAI_API_KEY", "a\nkey")], &openai, "OPENAI_API_KEY holds no key"),
        (&[("OPENAI_API_KEY", "schlüssel")], &openai, "OPENAI_API_KEY holds no key"),
        (&[], &["--model", "anthropic:a"], "set ANTHROPIC_API_KEY"),
        (&[], &["--model", "gemini:a"], "set GEMINI_API_KEY"),
        (&[], &["--model", "groq:a"], "set GROQ_API_KEY"),
        (&[], &["--model", "openrouter:a"], "set OPENROUTER_API_KEY"),
        (&[key, ("OPENAI_BASE_URL", "nonsense")], &openai, "OPENAI_BASE_URL can't be used"),
        (&[key, ("OPENAI_BASE_URL", "http://models.example/v1")], &openai, "--allow-plain-http models.example"),
        (&[key, ("OPENAI_BASE_URL", "https://a:secret@models.example")], &openai, "OPENAI_BASE_URL can't be used"),
        (&[("OLLAMA_HOST", "models.example:11434")], &["--model", "ollama:a"], "--allow-plain-http models.example"),
        (
            &[("HEADWATER_MODEL_KEY", "a-key")],
            &["--model", "http://127.0.0.1:1/v1#a", "--model", "http://127.0.0.1:2/v1#a"],
            "HEADWATER_MODEL_KEY is the key of one server",
        ),
    ] {
        let (output, said) = refused(variables, flags);
        assert_eq!(output.status.code(), Some(1), "{flags:?}: {said}");
        assert!(said.contains(told), "{flags:?}: {said}");
        assert_eq!(said.trim().lines().count(), 1, "{said}");
        assert!(!said.contains("a-key") && !said.contains("secret"), "{said}");
    }
}

#[test]
fn a_name_that_is_none_is_told_in_the_first_line_with_those_that_are() {
    for name in ["gpt-5", "nobody:gpt-5", "https://models.example/v1"] {
        let (output, said) = refused(&[], &["--model", name]);
        assert_eq!(output.status.code(), Some(2), "{said}");
        let line = said.lines().next().unwrap_or_default();
        assert!(line.contains("--model") && (line.contains("openai:MODEL") || line.contains("URL")), "{said}");
    }
}

#[tokio::test]
async fn redis_is_spoken_to_through_tls_where_its_certificate_is_trusted_and_nowhere_else() {
    let folder = std::env::temp_dir().join(format!("headwater-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("there is a folder");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).expect("it is written");
    std::fs::write(key, made.signing_key.serialize_pem()).expect("it is written");
    let server = RedisServer::start_with_tls(&folder);
    let address = format!("rediss://localhost:{}", server.port());
    let flags = ["--model", "ollama:a", "--journal", &address];

    let (output, said) = refused(&[], &flags);
    assert_eq!((output.status.code(), said.contains("certificate")), (Some(1), true), "{said}");
    let plain = address.replace("rediss:", "redis:");
    assert_eq!(refused(&[], &["--model", "ollama:a", "--journal", &plain]).0.status.code(), Some(1));
    let trusting = Process::spawn(&[("SSL_CERT_FILE", &certificate.display().to_string())], &flags).await;
    assert_eq!(trusting.origin.start(&serde_json::json!("a")).send().await.expect("it answers").status(), 502);
    drop(std::fs::remove_dir_all(folder));
}

#[tokio::test]
async fn fault_33_a_redis_that_cant_keep_a_journal_is_refused_and_one_that_may_evict_it_is_warned_of() {
    let nodes = std::env::temp_dir().join(format!("headwater-nodes-{}.conf", std::process::id()));
    let cluster =
        RedisServer::start_with(&["--cluster-enabled", "yes", "--cluster-config-file", nodes.to_str().unwrap()]);
    let (output, said) = refused(&[], &["--model", "ollama:a", "--journal", &cluster.address()]);
    assert_eq!((output.status.code(), said.trim().lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("it runs as a cluster"), "{said}");
    drop(cluster);
    std::fs::remove_file(nodes).unwrap();

    for (policy, warned) in [("volatile-lru", true), ("allkeys-lfu", true), ("noeviction", false)] {
        let server = RedisServer::start_with(&["--maxmemory-policy", policy]);
        let process = Process::spawn(&[], &["--model", "ollama:a", "--journal", &server.address()]).await;
        let log = process.log();
        assert_eq!(log.contains("redis may evict running streams"), warned, "{log}");
        assert_eq!(log.contains(policy), warned, "{log}");
    }
}
