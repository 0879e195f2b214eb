//! A Birthmark test server for Rust tests: DPS, IoT Hub, AWS IoT Core, and an EST CA.
//!
//! The command `birthmark` must be on the `PATH`. The server ends when its guard is dropped.

mod json;

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
    thread::sleep,
    time::{Duration, Instant},
};

pub use json::Value;

const END_PATIENCE: Duration = Duration::from_secs(10);

/// A command that the server rejects.
#[derive(Debug)]
pub struct Rejection {
    pub code: String,
    pub message: String,
    pub cause: String,
    pub fix: String,
}

impl fmt::Display for Rejection {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        write!(to, "{}: {} {} {}", self.code, self.message, self.cause, self.fix)
    }
}

impl Error for Rejection {}

/// Fields of a command, with their values as text; `birthmark test-server` lists them in response to `help`.
pub type Fields<'a> = &'a [(&'a str, &'a str)];

macro_rules! result {
    ($(#[$doc:meta])* $name:ident { $($field:ident),* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $(pub $field: String,)*
            /// Variables of the vendors' programs.
            pub environment: BTreeMap<String, String>,
        }

        impl From<Value> for $name {
            fn from(found: Value) -> Self {
                let text = |name| [&found[name], &found["files"][name]].map(Value::text).concat();
                let pairs = found["environment"].members().iter();
                let environment = pairs.map(|(name, value)| (name.clone(), value.text().into())).collect();
                Self { $($field: text(stringify!($field)),)* environment }
            }
        }
    };
}

result! {
    /// A device of DPS or IoT Hub; its files or its symmetric key are empty.
    Device { name, registration_id, provisioning_host, id_scope, hub_host, certificate_file, key_file, symmetric_key,
        connection_string }
}
result! {
    /// A thing of AWS IoT Core.
    Thing { name, arn, endpoint, region, certificate_id, certificate_file, key_file }
}
result! {
    /// A certificate that the CA issued, and the credentials of its EST client.
    EstIdentity { name, url, username, password, certificate_file, key_file }
}
result! {
    /// A simulated secure element; `environment` has what its PKCS#11 library needs.
    Chip { name, directory, certificate_file, key_file, key_label }
}

/// Guard of a running server. Its methods panic if the server rejects a command.
pub struct Server {
    /// What `birthmark test-server --json` prints at its start.
    pub endpoints: Value,
    /// File with the server's CA certificates.
    pub trust_bundle: String,
    pipes: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    process: Child,
}

impl Server {
    /// Start a server with addresses of its own.
    #[track_caller]
    pub fn start() -> Self {
        Self::with_options(&[])
    }

    /// Start a server with further options of `birthmark test-server`.
    #[track_caller]
    pub fn with_options(options: &[&str]) -> Self {
        let mut command = Command::new("birthmark");
        command.args(["test-server", "--json"]).args(options).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("start `birthmark`, from birthmark[server]");
        let input = process.stdin.take().expect("stdin is a pipe");
        let mut output = BufReader::new(process.stdout.take().expect("stdout is a pipe"));
        let endpoints = read(&mut output);
        let trust_bundle = endpoints["trust_bundle"].text().to_owned();
        Self { endpoints, trust_bundle, pipes: Mutex::new(Some((input, output))), process }
    }

    /// Create a device; fields: `auth` (x509, key), `at` (dps, hub), `lasts`, `certificate_file`, `key_file`.
    #[track_caller]
    pub fn azure_device(&self, name: &str, fields: Fields) -> Device {
        self.run("azure-device", &[&[("name", name)], fields].concat()).into()
    }

    /// Create a thing with a certificate; fields: `action`, `policy`, `lasts`, `certificate_file`, `key_file`.
    #[track_caller]
    pub fn aws_thing(&self, name: &str, fields: Fields) -> Thing {
        self.run("aws-thing", &[&[("name", name)], fields].concat()).into()
    }

    /// Issue a certificate of the server's CA over EST.
    #[track_caller]
    pub fn est_identity(&self, name: &str) -> EstIdentity {
        self.run("est-identity", &[("name", name)]).into()
    }

    /// Create a simulated secure element: `se050`, `atecc608`, or `generic`.
    #[track_caller]
    pub fn chip(&self, name: &str, kind: &str) -> Chip {
        self.run("chip", &[("name", name), ("kind", kind)]).into()
    }

    /// Reject a device with this code from now on.
    #[track_caller]
    pub fn refuse(&self, name: &str, code: &str) {
        self.run("refuse", &[("name", name), ("code", code)]);
    }

    /// Messages of a device, with `topic` and `body`; with the field `at` = `aws`, those of a thing.
    #[track_caller]
    pub fn messages(&self, name: &str, fields: Fields) -> Vec<Value> {
        self.run("messages", &[&[("name", name)], fields].concat())["items"].items().to_vec()
    }

    /// Refusals of a device, the latest first, with `code`, `cause`, and `fix`; waits for them.
    #[track_caller]
    pub fn why(&self, name: &str, fields: Fields) -> Vec<Value> {
        self.run("why", &[&[("name", name)], fields].concat())["items"].items().to_vec()
    }

    /// Run any command, such as `reset`, `expire`, `clock`, or `line`.
    #[track_caller]
    pub fn run(&self, command: &str, fields: Fields) -> Value {
        self.ask(command, fields).unwrap_or_else(|rejection| panic!("{rejection}"))
    }

    /// Run any command, and return its rejection as an error.
    #[track_caller]
    pub fn ask(&self, command: &str, fields: Fields) -> Result<Value, Rejection> {
        let mut pipes = self.pipes.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (input, output) = pipes.as_mut().expect("pipes exist until the guard is dropped");
        let members = [&[("do", command)], fields].concat();
        let members = members.iter().map(|(name, value)| format!("{}: {}", json::quote(name), json::quote(value)));
        writeln!(input, "{{{}}}", members.collect::<Vec<_>>().join(", ")).expect("the server has ended");
        let found = read(output);
        let text = |name| found[name].text().to_owned();
        match found["error"].text() {
            "" => Ok(found),
            code => {
                Err(Rejection { code: code.into(), message: text("message"), cause: text("cause"), fix: text("fix") })
            }
        }
    }
}

#[track_caller]
fn read(output: &mut impl BufRead) -> Value {
    let mut line = String::new();
    output.read_line(&mut line).expect("a line of text");
    json::parse(&line).unwrap_or_else(|| panic!("the server has ended: {line}"))
}

impl Drop for Server {
    fn drop(&mut self) {
        let pipes = self.pipes.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        *pipes = None; // ends the server
        let deadline = Instant::now() + END_PATIENCE;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
            sleep(Duration::from_millis(10));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
