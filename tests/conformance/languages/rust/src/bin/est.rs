//! est-ca's client enrolls and renews over EST; it takes one line of base64, and no label.

use base64::{Engine, engine::general_purpose::STANDARD};
use est_ca::est::client;
use languages::{Failure, file, finish, operation, setting, unknown_operation};
use reqwest::{Certificate, Client, Identity};
use serde_json::{Value, json};

#[tokio::main]
async fn main() {
    finish(run().await)
}

async fn run() -> Result<Value, Failure> {
    let (http, url) = (http()?, format!("https://{}", setting("HOST")));
    match operation().as_str() {
        "cacerts" => Ok(json!({"certificate": STANDARD.encode(client::cacerts(&http, &url).await?)})),
        "enroll" => {
            let (request, key) = client::make_csr(&setting("NAME"))?;
            let (user, password) = (setting("USERNAME"), setting("PASSWORD"));
            let certificate = client::simpleenroll(&http, &url, &user, &password, &request).await?;
            Ok(json!({"certificate": STANDARD.encode(certificate), "key": key}))
        }
        "reenroll" => {
            let (request, key) = client::make_csr(&setting("NAME"))?;
            let certificate = client::simplereenroll(&http, &url, &request).await?;
            Ok(json!({"certificate": STANDARD.encode(certificate), "key": key}))
        }
        _ => Err(unknown_operation()),
    }
}

fn http() -> Result<Client, Failure> {
    let roots = Certificate::from_pem(&file("CA_FILE")?)?;
    let mut builder = Client::builder().tls_built_in_root_certs(false).add_root_certificate(roots);
    if !setting("CERT_FILE").is_empty() {
        builder = builder.identity(Identity::from_pkcs8_pem(&file("CERT_FILE")?, &file("KEY_FILE")?)?);
    }
    Ok(builder.build()?)
}
