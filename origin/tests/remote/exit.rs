//! How the program ends.

use headwater_origin_testing::open;
use serde_json::json;

use crate::process::Process;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/models/SmolLM2-135M-Instruct.Q8_0.gguf");

#[tokio::test]
async fn fault_18_it_ends_well_while_the_embedded_model_writes() {
    for _ in 0..3 {
        let flags = ["--embedded-path", MODEL, "--embedded-threads", "1", "--drain-timeout", "0s"];
        let process = Process::spawn(&[], &flags).await;
        let mut writing = open(process.origin.start(&json!("a long story of a long road"))).await;
        writing.chunk().await.unwrap().unwrap();
        let status = process.terminated().await;
        assert!(status.success(), "{status}");
    }
}
