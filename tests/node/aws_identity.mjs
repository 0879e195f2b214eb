// A device of the vendor's SDK for Node.js that is provisioned by claim, unmodified: one JSON object tells what to do,
// each line of the answer is one. `client` says which identity client: v1, or v2 over MQTT 3.1.1 or 5 (`mqtt`).
import {once} from 'node:events';
import {iot, iotidentity, mqtt, mqtt5} from 'aws-iot-device-sdk-v2';

const given = JSON.parse(process.argv[2]);

function connection3() {
    const config = iot.AwsIotMqttConnectionConfigBuilder.new_mtls_builder_from_path(given.certificate, given.key)
        .with_certificate_authority_from_path(undefined, given.ca)
        .with_clean_session(true)
        .with_client_id(given.client_id)
        .with_endpoint(given.endpoint)
        .with_port(8883)
        .build();
    return new mqtt.MqttClient().new_connection(config);
}

function client5() {
    const builder = iot.AwsIotMqtt5ClientConfigBuilder.newDirectMqttBuilderWithMtlsFromPath(
        given.endpoint, given.certificate, given.key);
    builder.withCertificateAuthorityFromPath(undefined, given.ca);
    builder.withPort(8883);
    builder.withConnectProperties({clientId: given.client_id, keepAliveIntervalSeconds: 60});
    return new mqtt5.Mqtt5Client(builder.build());
}

async function connected() {
    if (given.mqtt === 5) {
        const client = client5();
        const success = once(client, 'connectionSuccess');
        client.start();
        await success;
        return client;
    }
    const connection = connection3();
    await connection.connect();
    return connection;
}

const OPTIONS = {maxRequestResponseSubscriptions: 8, maxStreamingSubscriptions: 2, operationTimeoutInSeconds: 20};

function second(connection) {
    const client = given.mqtt === 5
        ? iotidentity.IotIdentityClientv2.newFromMqtt5(connection, OPTIONS)
        : iotidentity.IotIdentityClientv2.newFromMqtt311(connection, OPTIONS);
    return {
        keys: () => client.createKeysAndCertificate({}),
        csr: (csr) => client.createCertificateFromCsr({certificateSigningRequest: csr}),
        register: (request) => client.registerThing(request),
    };
}

function first(connection) {
    const client = new iotidentity.IotIdentityClient(connection);
    const qos = mqtt.QoS.AtLeastOnce;
    const asked = async (name, topic, request) => {
        let settle;
        const answer = new Promise((resolve, reject) => { settle = {resolve, reject}; });
        answer.catch(() => {}); // it may come before anybody waits for it
        const take = (error, response) => (error ? settle.reject(error) : settle.resolve(response));
        await client[`subscribeTo${name}Accepted`](topic, qos, take);
        await client[`subscribeTo${name}Rejected`](topic, qos, (_, told) => settle.reject({modeledError: told}));
        await client[`publish${name}`](request, qos);
        return answer;
    };
    return {
        keys: () => asked('CreateKeysAndCertificate', {}, {}),
        csr: (csr) => asked('CreateCertificateFromCsr', {}, {certificateSigningRequest: csr}),
        register: (request) => asked('RegisterThing', {templateName: request.templateName}, request),
    };
}

const connection = await connected();
const device = given.client === 'v1' ? first(connection) : second(connection);
const told = async (answer) => {
    try {
        console.log(JSON.stringify({accepted: await answer}));
    } catch (error) {
        console.log(JSON.stringify({rejected: error.modeledError ?? `${error}`}));
        process.exit(0);
    }
};
const made = given.csr ? await device.csr(given.csr) : await device.keys();
console.log(JSON.stringify({accepted: made}));
const request = {
    templateName: given.template,
    certificateOwnershipToken: made.certificateOwnershipToken,
    parameters: given.parameters,
};
await told(device.register(request));
await told(device.register(request)); // the token is used up
process.exit(0);
