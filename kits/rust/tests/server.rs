use std::{fs, net::TcpStream};

use birthmark_testing::{Server, Value};

#[test]
fn a_device_has_what_its_client_needs() {
    let server = Server::start();
    let device = server.azure_device("pump-1", &[("at", "hub")]);
    assert!(fs::read_to_string(&device.certificate_file).unwrap().contains("BEGIN CERTIFICATE"));
    assert!(fs::read_to_string(&server.trust_bundle).unwrap().contains("BEGIN CERTIFICATE"));
    assert_eq!(device.environment["DEVICE_ID"], device.name);
    assert_eq!(server.run("known", &[("name", "pump-1")])["known"], Value::Bool(true));
    assert_eq!(device.symmetric_key, "");
}

#[test]
fn a_device_with_a_symmetric_key_has_a_connection_string_and_no_message() {
    let server = Server::start();
    let device = server.azure_device("pump-1", &[("at", "hub"), ("auth", "key")]);
    assert!(device.connection_string.ends_with(&device.symmetric_key));
    assert_eq!(device.certificate_file, "");
    assert!(server.messages("pump-1", &[]).is_empty());
}

#[test]
fn a_thing_an_est_identity_and_a_chip_have_certificates() {
    let server = Server::start();
    let chip = server.chip("chip-1", "se050");
    let files = [
        server.aws_thing("pump-1", &[]).certificate_file,
        server.est_identity("pump-2").certificate_file,
        chip.certificate_file,
    ];
    for file in files {
        assert!(fs::read_to_string(file).unwrap().contains("BEGIN CERTIFICATE"));
    }
    assert!(chip.environment.contains_key("BIRTHMARK_PKCS11_MODULE"));
}

#[test]
fn a_rejected_command_is_an_error_with_its_fix() {
    let server = Server::start();
    let rejection = server.ask("expire", &[("name", "a \"name\"")]).unwrap_err();
    assert_eq!(rejection.code, "testing.subject_unknown");
    assert!(rejection.to_string().contains(&rejection.fix) && !rejection.fix.is_empty());
}

#[test]
#[should_panic(expected = "testing.subject_unknown")]
fn a_rejected_command_of_a_fixture_panics() {
    Server::start().refuse("pump-1", "iothub.device_disabled");
}

#[test]
fn the_server_ends_when_its_guard_is_dropped() {
    let server = Server::start();
    let host = server.endpoints["iothub"]["host"].text().to_owned();
    TcpStream::connect((host.as_str(), 8883)).unwrap();
    drop(server);
    assert!(TcpStream::connect((host.as_str(), 8883)).is_err());
}
