//! A device of IoT Hub that sends telemetry over MQTT.

use std::{error::Error, fs};

use rumqttc::{Client, Event, MqttOptions, Packet, QoS, TlsConfiguration, Transport};

/// PEM files of the server's CA, and of the device's certificate and key.
pub struct Files<'a> {
    pub ca: &'a str,
    pub certificate: &'a str,
    pub key: &'a str,
}

/// Connect to a hub with a certificate, and send one message.
pub fn send(hub: &str, name: &str, files: &Files, body: &str) -> Result<(), Box<dyn Error>> {
    let client_auth = Some((fs::read(files.certificate)?, fs::read(files.key)?));
    let mut options = MqttOptions::new(name, hub, 8883);
    options.set_credentials(format!("{hub}/{name}/?api-version=2021-04-12"), "");
    options.set_transport(Transport::Tls(TlsConfiguration::Simple {
        ca: fs::read(files.ca)?,
        alpn: None,
        client_auth,
    }));
    let (client, mut connection) = Client::new(options, 10);
    client.publish(format!("devices/{name}/messages/events/"), QoS::AtLeastOnce, false, body)?;
    for event in connection.iter() {
        if let Event::Incoming(Packet::PubAck(_)) = event? {
            client.disconnect()?;
            return Ok(());
        }
    }
    Err("the connection ended".into())
}
