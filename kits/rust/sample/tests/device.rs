use birthmark_testing::{Device, Server};
use device::{Files, send};

fn files<'a>(server: &'a Server, pump: &'a Device) -> Files<'a> {
    Files { ca: &server.trust_bundle, certificate: &pump.certificate_file, key: &pump.key_file }
}

#[test]
fn a_device_sends_a_message() {
    let server = Server::start();
    let pump = server.azure_device("pump-1", &[("at", "hub")]);
    send(&pump.hub_host, &pump.name, &files(&server, &pump), "21.5").unwrap();
    let messages = server.messages("pump-1", &[]);
    assert_eq!(messages[0]["body"].text(), "21.5");
}

#[test]
fn a_disabled_device_does_not_connect() {
    let server = Server::start();
    let pump = server.azure_device("pump-1", &[("at", "hub")]);
    server.refuse("pump-1", "iothub.device_disabled");
    send(&pump.hub_host, &pump.name, &files(&server, &pump), "21.5").unwrap_err();
    assert_eq!(server.why("pump-1", &[])[0]["code"].text(), "iothub.device_disabled");
}
