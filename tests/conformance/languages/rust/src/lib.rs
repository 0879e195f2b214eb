//! Settings of a client from the environment, and its results as JSON, an object a line.

use std::{env, error::Error, fmt::Write, fs, process::exit, time::Duration};

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

pub type Failure = Box<dyn Error + Send + Sync>;

/// How long a program waits for a server.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A setting, empty if it is not set.
pub fn setting(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

/// The operation that is asked for.
pub fn operation() -> String {
    env::args().nth(1).unwrap_or_default()
}

/// Contents of the file that a setting names.
pub fn file(name: &str) -> Result<Vec<u8>, Failure> {
    fs::read(setting(name)).map_err(|error| format!("{name}: {error}").into())
}

/// Print a result, and end the program: with 1 if it is a client's error.
pub fn finish(result: Result<Value, Failure>) -> ! {
    match result {
        Ok(value) => {
            println!("{value}");
            exit(0)
        }
        Err(error) => {
            println!("{}", json!({"error": chain(error.as_ref())}));
            exit(1)
        }
    }
}

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    let mut told = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(one) = cause {
        let _ = write!(told, ": {one}");
        cause = one.source();
    }
    told
}

/// Return when the standard input ends.
pub async fn input_ended() {
    let mut rest = Vec::new();
    let _ = tokio::io::stdin().read_to_end(&mut rest).await;
}

pub fn unknown_operation() -> Failure {
    format!("no such operation: {}", operation()).into()
}

/// Settings of an MQTT device.
pub mod mqtt {
    use rumqttc::{TlsConfiguration, Transport};
    use serde_json::{Value, json};

    use super::{Failure, file, setting};

    /// Host and port.
    pub fn host() -> Result<(String, u16), Failure> {
        let host = setting("HOST");
        let (name, port) = host.split_once(':').ok_or("HOST has no port")?;
        Ok((name.into(), port.parse()?))
    }

    /// TLS with the server's CA, and the device's certificate if it has one.
    pub fn transport() -> Result<Transport, Failure> {
        let has_certificate = !setting("CERT_FILE").is_empty();
        let client_auth = if has_certificate { Some((file("CERT_FILE")?, file("KEY_FILE")?)) } else { None };
        Ok(Transport::Tls(TlsConfiguration::Simple { ca: file("CA_FILE")?, alpn: None, client_auth }))
    }

    pub fn message(topic: &str, payload: &[u8]) -> Value {
        json!({"topic": topic, "payload": String::from_utf8_lossy(payload)})
    }

    /// Where a hub expects the answer to a direct method: PUBLISH, with the parameters of its call.
    pub fn answer_topic(call: &str) -> String {
        let parameters = call.split_once('?').map_or("", |(_, found)| found);
        format!("{}?{parameters}", setting("PUBLISH"))
    }
}
