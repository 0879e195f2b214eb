'use strict';
// A Birthmark test server for Node.js tests. The command `birthmark` must be on the PATH.
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const { createInterface } = require('node:readline');

/** A command that the server rejects; `code` is the code of its refusal. */
class BirthmarkError extends Error {
  constructor({ error, message, cause, fix }) {
    super(`${error}: ${message} ${cause} ${fix}`);
    Object.assign(this, { code: error, fix });
  }
}

class Server {
  #process;
  #lines;

  constructor(child) {
    this.#process = child;
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  }

  /** Starts a server, with further options of `birthmark test-server`. */
  static async start(...options) {
    const child = spawn('birthmark', ['test-server', '--json', ...options], { stdio: ['pipe', 'pipe', 'inherit'] });
    await once(child, 'spawn');
    const server = new Server(child);
    server.endpoints = await server.#read();
    return server;
  }

  /** Deletes the devices, messages, and faults; addresses and CA remain. */
  async reset() {
    this.endpoints = await this.ask('reset');
  }

  /** Creates a device; fields: auth (x509, key), at (dps, hub), lasts, certificate_file, key_file. */
  azureDevice(name, fields = {}) {
    return this.ask('azure-device', { name, ...fields });
  }

  /** Creates a thing with a certificate; fields: action, policy, lasts, certificate_file, key_file. */
  awsThing(name, fields = {}) {
    return this.ask('aws-thing', { name, ...fields });
  }

  /** Issues a certificate of the server's CA over EST. */
  estIdentity(name) {
    return this.ask('est-identity', { name });
  }

  /** Creates a simulated secure element: se050, atecc608, or generic. */
  chip(name, kind = 'se050') {
    return this.ask('chip', { name, kind });
  }

  /** Rejects a device with this code from now on. */
  refuse(name, code) {
    return this.ask('refuse', { name, code });
  }

  /** Lists the messages of a device; with the field at = aws, those of a thing. */
  async messages(name, fields = {}) {
    return (await this.ask('messages', { name, ...fields })).items;
  }

  /** Lists the refusals of a device, the latest first, and waits for them; fields: code, limit, within_s. */
  async why(name, fields = {}) {
    return (await this.ask('why', { name, ...fields })).items;
  }

  /** Runs any command, such as expire, clock, or line. */
  ask(command, fields = {}) {
    this.#process.stdin.write(`${JSON.stringify({ do: command, ...fields })}\n`);
    return this.#read();
  }

  /** Ends the server. */
  async stop() {
    const ended = once(this.#process, 'exit');
    this.#process.stdin.end();
    await ended;
  }

  async #read() {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error('the server has ended');
    const found = JSON.parse(value);
    if (found.error) throw new BirthmarkError(found);
    return found;
  }
}

module.exports = { BirthmarkError, Server };
