//! LaunchDarkly's `eventsource-client`.

use std::{env, error::Error};

use eventsource_client::{Client, ClientBuilder, SSE};
use futures::StreamExt;
use launchdarkly_sdk_transport::HyperTransport;
use serde_json::json;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let mut client = ClientBuilder::for_url(&arguments.next().ok_or("a URL")?)?;
    if let Some(authorization) = arguments.next() {
        client = client.header("authorization", &authorization)?;
    }
    let mut events = client.build_with_transport(HyperTransport::builder().build_http()?).stream();
    // It hands out comments and broken connections, too, and connects again.
    while let Some(event) = events.next().await {
        if let Ok(SSE::Event(event)) = event {
            println!("{}", json!([event.event_type, event.data]));
            // Behind a 204 it would ask again for ever.
            if matches!(event.event_type.as_str(), "done" | "failed") {
                break;
            }
        }
    }
    Ok(())
}
