// A device of the vendor's SDK for Node.js that does its jobs, unmodified, as its sample does: it waits for the next
// one, starts it, says how far it is, ends it, until the list is empty. One JSON object tells what to do; each line that
// is said is one. `client` is v1, or v2 over MQTT 3.1.1 or 5 (`mqtt`).
import {once} from 'node:events';
import {iot, iotjobs, mqtt, mqtt5} from 'aws-iot-device-sdk-v2';

const given = JSON.parse(process.argv[2]);
const thingName = given.thing;
const say = (told) => console.log(JSON.stringify(told));

async function connected() {
    if (given.mqtt === 5) {
        const builder = iot.AwsIotMqtt5ClientConfigBuilder.newDirectMqttBuilderWithMtlsFromPath(
            given.endpoint, given.certificate, given.key);
        builder.withCertificateAuthorityFromPath(undefined, given.ca);
        builder.withPort(8883);
        builder.withConnectProperties({clientId: thingName, keepAliveIntervalSeconds: 60});
        const client = new mqtt5.Mqtt5Client(builder.build());
        const success = once(client, 'connectionSuccess');
        client.start();
        await success;
        return client;
    }
    const config = iot.AwsIotMqttConnectionConfigBuilder.new_mtls_builder_from_path(given.certificate, given.key)
        .with_certificate_authority_from_path(undefined, given.ca)
        .with_clean_session(true)
        .with_client_id(thingName)
        .with_endpoint(given.endpoint)
        .with_port(8883)
        .build();
    const connection = new mqtt.MqttClient().new_connection(config);
    await connection.connect();
    return connection;
}

const OPTIONS = {maxRequestResponseSubscriptions: 8, maxStreamingSubscriptions: 2, operationTimeoutInSeconds: 20};

async function second(connection) {
    const client = given.mqtt === 5
        ? iotjobs.IotJobsClientv2.newFromMqtt5(connection, OPTIONS)
        : iotjobs.IotJobsClientv2.newFromMqtt311(connection, OPTIONS);
    const stream = client.createNextJobExecutionChangedStream({thingName});
    const open = once(stream, 'subscriptionStatus');
    const waiting = [];
    const heard = [];
    stream.on('incomingPublish', ({message}) => (waiting.length ? waiting.shift()(message) : heard.push(message)));
    stream.open();
    await open;
    return {
        changed: () => new Promise((resolve) => (heard.length ? resolve(heard.shift()) : waiting.push(resolve))),
        pending: () => client.getPendingJobExecutions({thingName}),
        start: () => client.startNextPendingJobExecution({thingName}),
        update: (request) => client.updateJobExecution({thingName, ...request}),
    };
}

async function first(connection) {
    const client = new iotjobs.IotJobsClient(connection);
    const qos = mqtt.QoS.AtLeastOnce;
    const waiting = [];
    const heard = [];
    await client.subscribeToNextJobExecutionChangedEvents({thingName}, qos, (_, message) =>
        (waiting.length ? waiting.shift()(message) : heard.push(message)));
    const asked = async (name, publish, request) => {
        let settle;
        const answer = new Promise((resolve, reject) => { settle = {resolve, reject}; });
        answer.catch(() => {}); // it may come before anybody waits for it
        const take = (error, response) => (error ? settle.reject(error) : settle.resolve(response));
        await client[`subscribeTo${name}Accepted`](request, qos, take);
        await client[`subscribeTo${name}Rejected`](request, qos, (_, told) => settle.reject({modeledError: told}));
        await client[publish](request, qos);
        return answer;
    };
    return {
        changed: () => new Promise((resolve) => (heard.length ? resolve(heard.shift()) : waiting.push(resolve))),
        pending: () => asked('GetPendingJobExecutions', 'publishGetPendingJobExecutions', {thingName}),
        start: () => asked('StartNextPendingJobExecution', 'publishStartNextPendingJobExecution', {thingName}),
        update: (request) => asked('UpdateJobExecution', 'publishUpdateJobExecution', {thingName, ...request}),
    };
}

const connection = await connected();
const device = given.client === 'v1' ? await first(connection) : await second(connection);
say({ready: true});
for (let done = 0; done < given.jobs; done += 1) {
    if (done === 0) {
        await device.changed();
    }
    const {execution} = await device.start();
    say({began: execution.jobId, document: execution.jobDocument, version: execution.versionNumber});
    const where = {jobId: execution.jobId, executionNumber: execution.executionNumber};
    const details = {statusDetails: {step: 'one'}, expectedVersion: execution.versionNumber};
    const told = await device.update({...where, ...details, status: 'IN_PROGRESS', includeJobExecutionState: true});
    say({is: told.executionState.status, version: told.executionState.versionNumber});
    try {
        await device.update({...where, expectedVersion: 1, status: 'SUCCEEDED'});
    } catch (error) {
        say({rejected: error.modeledError?.code ?? `${error}`});
    }
    await device.update({...where, status: 'SUCCEEDED'});
}
const left = await device.pending();
say({left: [...left.inProgressJobs, ...left.queuedJobs].length});
process.exit(0);
