// A mail server (nodemailer's smtp-server) on loopback: prints each mail as a line of JSON.
// node node_smtp.js ADDRESS KEY CERTIFICATE
const path = require("node:path");
const fs = require("node:fs");
const { SMTPServer } = require(path.join(__dirname, "..", "..", "node", "node_modules", "smtp-server"));

const [address, key, cert] = process.argv.slice(2);
const server = new SMTPServer({
  key: fs.readFileSync(key),
  cert: fs.readFileSync(cert),
  authOptional: false,
  onAuth: (auth, session, done) =>
    auth.username === "birthmark" && auth.password === "right"
      ? done(null, { user: auth.username })
      : done(new Error("wrong")),
  onRcptTo: ({ address: to }, session, done) => {
    if (to.startsWith("nobody@")) return done(Object.assign(new Error("no such user"), { responseCode: 550 }));
    if (to.startsWith("later@")) return done(Object.assign(new Error("busy"), { responseCode: 451 }));
    return done();
  },
  onData: (stream, session, done) => {
    const parts = [];
    stream.on("data", (part) => parts.push(part));
    stream.on("end", () => {
      const text = Buffer.concat(parts).toString();
      console.log(JSON.stringify({ from: session.envelope.mailFrom.address, to: session.envelope.rcptTo, secure: session.secure, text }));
      done(null, "taken");
    });
  },
});
server.on("error", () => {});
server.listen(0, address, () => console.log(JSON.stringify({ port: server.server.address().port })));
