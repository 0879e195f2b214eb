'use strict'
// Gives Node programs that take a key the key in a chip. `birthmark chip exec` loads it by NODE_OPTIONS.
//
// Node has what it takes (`privateKeyEngine`), but its libraries hand on a PEM only. `tls.createSecureContext` then looks
// at the key: an SE050 reference key, a `pkcs11:` URI or pkcs11-provider's URI PEM becomes the token's key through
// OpenSSL's PKCS#11 engine; every other key goes the usual way. The key itself never enters this process.
//
// It needs nothing of Birthmark. Settings come by environment, as sitecustomize.py has them.

const tls = require('tls')

const MAX_BYTES = 64 * 1024
const MAGIC = Buffer.from('a5a6b5b6a5a6b5b6', 'hex')
const RSA_MAGIC = 'a5a6b5b6'
const EC_OID = Buffer.from('2a8648ce3d0201', 'hex')
const INTEGER = 2
const BLOCK = /-----BEGIN ((?:EC |RSA )?PRIVATE KEY|PKCS#11 PROVIDER URI)-----([A-Za-z0-9+/=\s]*)-----END \1-----/g
const settings = process.env

function values (der) { // DER cut into [tag, content] pairs
  const out = []
  let at = 0
  while (at < der.length) {
    const tag = der[at]
    let length = der[at + 1]
    at += 2
    if (length & 0x80) {
      const size = length & 0x7f
      if (size < 1 || size > 3 || at + size > der.length) throw new RangeError('length')
      length = der.readUIntBE(at, size)
      at += size
    }
    if (!(at + length <= der.length)) throw new RangeError('end')
    out.push([tag, der.subarray(at, at + length)])
    at += length
  }
  return out
}

function objectId (label, der) { // of a reference key; null of any other key (format: keys.reference)
  let fields = values(values(der)[0][1])
  let isEc = label.startsWith('EC')
  if (label === 'PRIVATE KEY') {
    isEc = fields[1][1].includes(EC_OID)
    fields = values(values(fields[2][1])[0][1])
  }
  if (isEc) {
    const scalar = fields[1][1]
    const at = scalar.length - 10
    return at >= 4 && scalar.subarray(at, at + 8).equals(MAGIC) ? scalar.readUInt32BE(at - 4) : null
  }
  const numbers = fields.filter(([tag]) => tag === INTEGER).map(([, value]) => BigInt('0x0' + value.toString('hex')))
  if (numbers.length < 9 || numbers[8] !== BigInt('0x' + RSA_MAGIC)) return null
  if (numbers[4] !== 1n && numbers[5] !== 1n) return null
  return Number((numbers[4] === 1n ? numbers[5] : numbers[4]) & 0xffffffffn)
}

function withToken (uri) { // without the query, which is ours to know, and with the token that is meant
  const path = uri.split('?')[0].slice('pkcs11:'.length)
  const token = settings.BIRTHMARK_EXEC_TOKEN
  const parts = /(^|;)(token|serial)=/.test(path) || !token ? [path] : [`token=${encodeURIComponent(token)}`, path]
  if (!path.includes('type=')) parts.push('type=private')
  return 'pkcs11:' + parts.join(';')
}

function uriOf (text) { // null for an ordinary key
  if (text.trimStart().startsWith('pkcs11:')) return withToken(text.trim())
  for (const [, label, body] of text.matchAll(BLOCK)) {
    let id
    try {
      const der = Buffer.from(body, 'base64')
      if (label.startsWith('PKCS#11')) return withToken(values(values(der)[0][1])[1][1].toString())
      id = objectId(label, der)
    } catch (error) {
      continue
    }
    if (id === null) continue
    const name = id.toString(16).toUpperCase().padStart(8, '0')
    const known = Object.fromEntries((settings.BIRTHMARK_EXEC_KEYS || '').split(',').map(pair => pair.split('=', 2)))
    return withToken(`pkcs11:object=${encodeURIComponent(known[name] || `sss:${name}`)};type=private`)
  }
  return null
}

function textOf (key) {
  const one = Array.isArray(key) ? key[0] : key
  const pem = one && one.pem !== undefined ? one.pem : one
  if (typeof pem !== 'string' && !Buffer.isBuffer(pem)) return ''
  return pem.length > MAX_BYTES ? '' : pem.toString('latin1')
}

function withPin (uri) {
  const file = settings.BIRTHMARK_EXEC_PIN_FILE
  if (!file) return uri
  const pin = require('fs').readFileSync(file, 'utf8').split('\n')[0]
  return `${uri}?pin-value=${[...Buffer.from(pin)].map(byte => '%' + byte.toString(16).padStart(2, '0')).join('')}`
}

function fromChip (options, uri) {
  if (typeof require('crypto').setEngine !== 'function' || !settings.BIRTHMARK_EXEC_ENGINE) {
    throw new Error(`birthmark: the key ${uri} is in a chip, and this Node has no engines; use element exec --how proxy`)
  }
  // Both are read by the engine's and OpenSSL's getenv at the first key.
  settings.OPENSSL_ENGINES = require('path').dirname(settings.BIRTHMARK_EXEC_ENGINE)
  settings.PKCS11_MODULE_PATH = settings.BIRTHMARK_EXEC_MODULE
  if (settings.BIRTHMARK_EXEC_EXPLAIN) process.stderr.write(`birthmark: a key file -> ${uri}\n`)
  const { key, passphrase, ...others } = options
  return { ...others, privateKeyEngine: 'pkcs11', privateKeyIdentifier: withPin(uri) }
}

if (settings.BIRTHMARK_EXEC_MODULE) {
  const original = tls.createSecureContext
  tls.createSecureContext = function createSecureContext (options) {
    const uri = options && options.key ? uriOf(textOf(options.key)) : null
    return original.call(this, uri === null ? options : fromChip(options, uri))
  }
}
