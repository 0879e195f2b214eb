'use strict';
const test = require('node:test');
const assert = require('node:assert');
const { existsSync } = require('node:fs');
const { connect } = require('node:net');
const { BirthmarkError, Server } = require('./birthmark.cjs');

let server;
test.before(async () => { server = await Server.start(); });
test.beforeEach(() => server.reset());
test.after(() => server.stop());

test('a device with a symmetric key has a connection string and no message', async () => {
  const device = await server.azureDevice('pump-1', { at: 'hub', auth: 'key' });
  assert.ok(device.connection_string.endsWith(device.symmetric_key));
  assert.deepEqual(await server.messages('pump-1'), []);
});

test('a test has no devices of another', async () => {
  assert.deepEqual(await server.ask('known', { name: 'pump-1' }), { known: false });
});

test('a thing, an EST identity, and a chip have certificates', async () => {
  const made = [await server.awsThing('pump-1'), await server.estIdentity('pump-2')];
  const chip = await server.chip('chip-1', 'atecc608');
  const files = [...made.map((one) => one.files.certificate_file), chip.certificate_file];
  assert.deepEqual(files.map(existsSync), [true, true, true]);
  assert.ok(chip.environment.BIRTHMARK_PKCS11_MODULE);
});

test('a rejected command is an error with its fix', async () => {
  await assert.rejects(server.refuse('unknown', 'iothub.device_disabled'), (error) => {
    assert.ok(error instanceof BirthmarkError);
    assert.equal(error.code, 'testing.subject_unknown');
    return error.message.includes(error.fix);
  });
});

test('a device without refused requests has no refusals', async () => {
  await server.azureDevice('pump-1');
  assert.deepEqual(await server.why('pump-1', { within_s: 0 }), []);
});

test('a stopped server accepts no connections', async () => {
  const other = await Server.start();
  const { host } = other.endpoints.iothub;
  await other.stop();
  const code = await new Promise((resolve) => connect(8883, host).on('error', (error) => resolve(error.code)));
  assert.equal(code, 'ECONNREFUSED');
});
