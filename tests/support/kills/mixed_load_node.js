// A device by the vendor's Node SDK: telemetry out, messages in; a line on standard output for each that was acknowledged
// or came. It ends when its standard input ends.
const {Client, Message} = require('azure-iot-device');
const {Mqtt} = require('azure-iot-device-mqtt');

const {host, name, key} = JSON.parse(process.argv[2]);
const client = Client.fromConnectionString(`HostName=${host};DeviceId=${name};SharedAccessKey=${key}`, Mqtt);
const note = (kind, facts) => process.stdout.write(`${JSON.stringify({kind, ...facts})}\n`);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
let over = false;

process.stdin.on('end', () => { over = true; }).resume();
client.on('error', (error) => note('trouble', {what: `node ${name}`, why: `${error}`}));
client.on('disconnect', () => { note('cut', {client: name}); open(); });
client.on('message', (message) => {
  note('mailed', {device: name, n: JSON.parse(message.getData().toString()).n});
  client.complete(message, () => {});
});

async function open() {
  while (!over) {
    try {
      await client.open();
      note('connected', {client: name});
      return;
    } catch (error) {
      note('trouble', {what: `open ${name}`, why: `${error.name}`});
      await sleep(500);
    }
  }
}

async function send() {
  for (let n = 1; !over; n++) {
    await sleep(40);
    try {
      await client.sendEvent(new Message(JSON.stringify({n})));
      note('sent', {device: name, n});
    } catch (error) {
      note('trouble', {what: `send ${name}`, why: `${error.name}`});
      await sleep(200);
    }
  }
}

open().then(() => { note('ready', {}); return send(); }).then(() => sleep(20000)).then(() => process.exit(0));
