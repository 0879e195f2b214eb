//! The Azure SDK for Rust as a back end that reads a hub's telemetry from its Event Hubs-compatible endpoint.

use azure_messaging_eventhubs::{
    ConsumerClient, OpenReceiverOptions, RetryOptions, StartLocation, StartPosition, models::AmqpValue,
};
use futures::{StreamExt, future::select_all};
use languages::{Failure, PATIENCE, finish, input_ended, operation, setting, unknown_operation};
use serde_json::{Value, json};
use tokio::time::timeout;

#[tokio::main]
async fn main() {
    finish(run().await)
}

async fn run() -> Result<Value, Failure> {
    let consumer = timeout(PATIENCE, open()).await??;
    let hub = consumer.get_eventhub_properties().await?;
    match operation().as_str() {
        "describe" => Ok(json!({"name": hub.name, "partitions": hub.partition_ids})),
        "listen" => {
            let readers = hub.partition_ids.iter().map(|id| Box::pin(read(&consumer, id.clone())));
            tokio::select! {
                (ended, _, _) = select_all(readers) => ended,
                () = input_ended() => Ok(json!({})),
            }
        }
        _ => Err(unknown_operation()),
    }
}

async fn open() -> Result<ConsumerClient, Failure> {
    let retries = RetryOptions { max_retries: 2, ..Default::default() };
    let builder = ConsumerClient::builder().with_consumer_group(setting("CONSUMER_GROUP")).with_retry_options(retries);
    Ok(builder.open_with_connection_string(&setting("EVENT_HUB"), None).await?)
}

/// Print the events of a partition from the first one on.
async fn read(consumer: &ConsumerClient, partition: String) -> Result<Value, Failure> {
    let first = StartPosition { location: StartLocation::Earliest, ..Default::default() };
    let options = OpenReceiverOptions { start_position: Some(first), ..Default::default() };
    let receiver = consumer.open_receiver_on_partition(partition, Some(options)).await?;
    let mut events = receiver.stream_events();
    while let Some(event) = events.next().await {
        let event = event?;
        let body = String::from_utf8_lossy(event.event_data().body().unwrap_or_default()).into_owned();
        let device = match event.system_properties().get("iothub-connection-device-id") {
            Some(AmqpValue::String(name)) => Some(name),
            _ => None,
        };
        println!("{}", json!({"body": body, "device": device, "sequence": event.sequence_number()}));
    }
    Err("the stream of events ended".into())
}
