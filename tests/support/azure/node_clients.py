"""The unmodified Node SDKs of Azure as subprocesses: a script in, its lines out."""

import shutil
import subprocess
from pathlib import Path

from birthmark.testing.cloud import Cloud

NODE = Path(__file__).parents[2] / "node"
PRELUDE = """
const assert = require('node:assert');
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const told = (call) => new Promise((done, failed) => call((error, found) => error ? failed(error) : done(found)));
const key = Buffer.alloc(32, 'k').toString('base64'), other = Buffer.alloc(32, 'm').toString('base64');
const host = /HostName=([^;:]*)/.exec(process.env.IOTHUB_CONNECTION_STRING)[1];
const text = (one) => typeof one === 'string' ? one : JSON.stringify(one);
const say = (...words) => console.log(words.map(text).join(' '));
async function until(condition, what) {
  for (let look = 0; look < 400; look++) {
    if (await condition()) return;
    await sleep(50);
  }
  throw new Error(`never: ${what}`);
}
async function refused(call) {
  try {
    await call();
  } catch (error) {
    return error.response ? error.response.statusCode : error.name;
  }
  return 'no';
}
"""
ENDS = "main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });"


def node(cloud: Cloud, script: str, *arguments: str, **more: str) -> list[str]:
    """Run a script in the environment of a cloud, and return what it says."""
    done = subprocess.run(
        [shutil.which("node") or "node", "-e", script, *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        cwd=NODE,
        env=cloud.environment(**more),
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.splitlines()


def in_node(cloud: Cloud, script: str, **more: str) -> list[str]:
    """Run the body of an async function, after `PRELUDE`."""
    body = PRELUDE + "async function main() {\n" + script + "\n}\n"
    return node(cloud, body + ENDS, **more)
