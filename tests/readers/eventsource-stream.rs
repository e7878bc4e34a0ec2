//! `eventsource-stream` over reqwest.

use std::{env, error::Error};

use eventsource_stream::Eventsource;
use futures::StreamExt;
use serde_json::json;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let mut request =
        reqwest::Client::new().get(arguments.next().ok_or("a URL")?).header("accept", "text/event-stream");
    if let Some(authorization) = arguments.next() {
        request = request.header("authorization", authorization);
    }
    let mut events = request.send().await?.error_for_status()?.bytes_stream().eventsource();
    while let Some(event) = events.next().await {
        let event = event?;
        println!("{}", json!([event.event, event.data]));
    }
    Ok(())
}
