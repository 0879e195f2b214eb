//! The AWS SDK for Rust as an operator of things; endpoint and credentials come from the SDK's own variables.

use aws_sdk_iot::primitives::Blob;
use languages::{Failure, finish, operation, setting, unknown_operation};
use serde_json::{Value, json};

#[tokio::main]
async fn main() {
    finish(run().await)
}

async fn run() -> Result<Value, Failure> {
    let settings = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let control = aws_sdk_iot::Client::new(&settings);
    let data = aws_sdk_iotdataplane::Client::new(&settings);
    let jobs = aws_sdk_iotjobsdataplane::Client::new(&settings);
    match operation().as_str() {
        "create" => {
            let made = control.create_thing().thing_name(setting("THING")).send().await?;
            Ok(json!({"arn": made.thing_arn()}))
        }
        "describe" => {
            let found = control.describe_thing().thing_name(setting("THING")).send().await?;
            Ok(json!({"arn": found.thing_arn(), "version": found.version()}))
        }
        "certificate" => certificate(&control).await,
        "job" => job(&control).await,
        "execution" => execution(&jobs).await,
        "shadow" => shadow(&data).await,
        "publish" => {
            let message = data.publish().topic(setting("PUBLISH")).qos(1).payload(payload());
            message.send().await?;
            Ok(json!({"published": true}))
        }
        _ => Err(unknown_operation()),
    }
}

fn payload() -> Blob {
    Blob::new(setting("PAYLOAD"))
}

async fn certificate(control: &aws_sdk_iot::Client) -> Result<Value, Failure> {
    let made = control.create_keys_and_certificate().set_as_active(true).send().await?;
    let arn = made.certificate_arn().unwrap_or_default();
    control.attach_thing_principal().thing_name(setting("THING")).principal(arn).send().await?;
    control.attach_policy().policy_name(setting("POLICY")).target(arn).send().await?;
    let key = made.key_pair().and_then(|pair| pair.private_key());
    Ok(json!({"certificate": made.certificate_pem(), "key": key}))
}

async fn job(control: &aws_sdk_iot::Client) -> Result<Value, Failure> {
    let order = control.create_job().job_id(setting("JOB")).targets(setting("TARGET"));
    order.document(setting("PAYLOAD")).send().await?;
    let found = control.describe_job().job_id(setting("JOB")).send().await?;
    let status = found.job().and_then(|job| job.status()).map(|status| status.as_str());
    Ok(json!({"status": status}))
}

/// Start the next job of a thing, and report its success.
async fn execution(jobs: &aws_sdk_iotjobsdataplane::Client) -> Result<Value, Failure> {
    use aws_sdk_iotjobsdataplane::types::JobExecutionStatus;
    let started = jobs.start_next_pending_job_execution().thing_name(setting("THING")).send().await?;
    let next = started.execution().ok_or("no job is pending")?;
    let id = next.job_id().unwrap_or_default();
    let report = jobs.update_job_execution().thing_name(setting("THING")).job_id(id);
    report.status(JobExecutionStatus::Succeeded).send().await?;
    Ok(json!({"job": id, "document": next.job_document()}))
}

async fn shadow(data: &aws_sdk_iotdataplane::Client) -> Result<Value, Failure> {
    data.update_thing_shadow().thing_name(setting("THING")).payload(payload()).send().await?;
    let found = data.get_thing_shadow().thing_name(setting("THING")).send().await?;
    let text = found.payload().map(|one| String::from_utf8_lossy(one.as_ref()).into_owned());
    Ok(json!({"shadow": text}))
}
