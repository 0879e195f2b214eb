//! rumqttc's client of MQTT 5 as a device.

use std::time::Duration;

use languages::{Failure, PATIENCE, finish, input_ended, mqtt, operation, setting, unknown_operation};
use rumqttc::v5::{
    AsyncClient, Event, EventLoop, MqttOptions,
    mqttbytes::{
        QoS,
        v5::{Packet, SubscribeReasonCode},
    },
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

#[tokio::main]
async fn main() {
    finish(run().await)
}

async fn run() -> Result<Value, Failure> {
    let (host, port) = mqtt::host()?;
    let mut options = MqttOptions::new(setting("CLIENT_ID"), host, port);
    options.set_transport(mqtt::transport()?).set_keep_alive(Duration::from_secs(30));
    if !setting("USERNAME").is_empty() {
        options.set_credentials(setting("USERNAME"), setting("PASSWORD"));
    }
    let (client, events) = AsyncClient::new(options, 10);
    match operation().as_str() {
        "publish" | "exchange" => timeout(PATIENCE, exchange(&client, events)).await?,
        "listen" | "answer" => tokio::select! {
            ended = listen(&client, events) => ended,
            () = input_ended() => Ok(json!({})),
        },
        _ => Err(unknown_operation()),
    }
}

/// Publish once, and return at its acknowledgment, or at the message that arrives on its subscription.
async fn exchange(client: &AsyncClient, mut events: EventLoop) -> Result<Value, Failure> {
    loop {
        let Event::Incoming(packet) = events.poll().await? else {
            continue;
        };
        match packet {
            Packet::ConnAck(_) if operation() == "publish" => publish(client).await?,
            Packet::ConnAck(_) => subscribe(client).await?,
            Packet::SubAck(answer) => {
                granted(&answer.return_codes)?;
                publish(client).await?;
            }
            Packet::PubAck(_) if operation() == "publish" => return Ok(json!({})),
            Packet::Publish(got) => {
                return Ok(mqtt::message(&String::from_utf8_lossy(&got.topic), &got.payload));
            }
            _ => {}
        }
    }
}

/// Print what arrives, and subscribe again at each new connection; only the first one has to succeed at once.
async fn listen(client: &AsyncClient, mut events: EventLoop) -> Result<Value, Failure> {
    let mut was_connected = false;
    loop {
        let packet = match events.poll().await {
            Ok(Event::Incoming(packet)) => packet,
            Ok(_) => continue,
            Err(error) if !was_connected => return Err(error.into()),
            Err(_) => {
                sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        match packet {
            Packet::ConnAck(_) => {
                was_connected = true;
                subscribe(client).await?;
            }
            Packet::SubAck(answer) => {
                granted(&answer.return_codes)?;
                println!("{}", json!({"subscribed": true}));
            }
            Packet::Publish(got) => {
                println!("{}", mqtt::message(&String::from_utf8_lossy(&got.topic), &got.payload));
                if operation() == "answer" {
                    let topic = mqtt::answer_topic(&String::from_utf8_lossy(&got.topic));
                    client.publish(topic, QoS::AtLeastOnce, false, setting("PAYLOAD")).await?;
                }
            }
            _ => {}
        }
    }
}

async fn subscribe(client: &AsyncClient) -> Result<(), Failure> {
    Ok(client.subscribe(setting("SUBSCRIBE"), QoS::AtLeastOnce).await?)
}

async fn publish(client: &AsyncClient) -> Result<(), Failure> {
    Ok(client.publish(setting("PUBLISH"), QoS::AtLeastOnce, false, setting("PAYLOAD")).await?)
}

fn granted(codes: &[SubscribeReasonCode]) -> Result<(), Failure> {
    match codes {
        [SubscribeReasonCode::Success(_)] => Ok(()),
        _ => Err(format!("the subscription was refused: {codes:?}").into()),
    }
}
