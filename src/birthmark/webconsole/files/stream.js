// One stream of news for all tabs of a browser: it is open while one of them is looked at.
"use strict";
const SILENT_MS = 25000, LONGEST_PAUSE_MS = 15000;
const ports = new Map(); // a port, and whether its tab is looked at
let reading = null, pause = 500, isAway = false, isOpen = false, failed = 0;

function tell(message) {
  for (const [port, isSeen] of ports) if (isSeen) port.postMessage(message);
}

function settle() {
  const isWanted = [...ports.values()].some(Boolean);
  if (isWanted && !reading) read();
  if (!isWanted && reading) { reading.abort(); reading = null; }
}

async function read() {
  const own = reading = new AbortController();
  let timer = 0;
  const heard = () => { clearTimeout(timer); timer = setTimeout(() => own.abort(), SILENT_MS); };
  try {
    heard();
    const answer = await fetch("/live", { signal: own.signal, headers: { accept: "text/event-stream", "x-birthmark-by-itself": "1" }, redirect: "manual" });
    if (answer.type === "opaqueredirect" || answer.status === 401) {
      reading = null;
      return tell({ ended: true });
    }
    if (!answer.ok) throw new Error(String(answer.status));
    if (isAway) tell({ back: true });
    isAway = false;
    failed = 0;
    pause = 500;
    const lines = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await lines.read();
      if (done) break;
      heard();
      if (!isOpen) { // from its first word on nothing is missed
        isOpen = true;
        tell({ open: true });
      }
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) if (part.startsWith("data: ")) tell(JSON.parse(part.slice(6)));
    }
  } catch (problem) {
    if (reading !== own) return; // nobody looks any more
    failed += 1;
    if (failed > 1) { // one that was cut off begins anew, which needs nobody
      isAway = true;
      tell({ away: true });
    }
  } finally {
    clearTimeout(timer);
    if (reading === own || !reading) isOpen = false;
  }
  if (reading !== own) return;
  setTimeout(() => { if (reading === own) { reading = null; settle(); } }, pause);
  pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
}

function join(port) {
  ports.set(port, false);
  port.onmessage = ({ data }) => {
    if (data.left) ports.delete(port);
    else {
      ports.set(port, data.seen);
      if (data.seen && isAway) port.postMessage({ away: true });
      if (data.seen && isOpen && reading) port.postMessage({ open: true });
    }
    settle();
  };
}

if (typeof SharedWorkerGlobalScope !== "undefined") self.onconnect = (event) => join(event.ports[0]);
else join(self); // a worker of one tab, where a browser has no shared ones
