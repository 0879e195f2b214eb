// What pages do beside showing: copy, say at once that something was pressed, and follow what happens.
"use strict";
(() => {
  const own = document.currentScript;
  const root = document.documentElement;
  root.classList.add("js");

  // The server writes times as this place has them.
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  const kept = (document.cookie.match(/(?:^|; )birthmark-zone=([^;]*)/) || [])[1];
  if (kept !== encodeURIComponent(zone) && kept !== zone) {
    document.cookie = `birthmark-zone=${zone}; path=/; max-age=31536000; samesite=lax${location.protocol === "https:" ? "; secure" : ""}`;
    if (document.cookie.includes("birthmark-zone=") && zone !== "UTC" && !location.hash) location.reload();
  }

  // On a narrow screen the pages stand in one line: the one that is shown is in sight.
  const current = document.querySelector("nav.pages [aria-current]");
  if (current) {
    const line = current.closest("ul");
    line.scrollLeft = current.offsetLeft - (line.clientWidth - current.offsetWidth) / 2;
  }

  const words = (element, name, values = {}) => element.dataset[name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
  const dress = (part) => {
    for (const button of part.querySelectorAll("button.copy[hidden]")) button.hidden = false;
    for (const one of part.querySelectorAll("[data-needs-script][hidden]")) one.hidden = false;
  };
  dress(document);

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button.copy");
    if (!button) return;
    const text = button.dataset.text || button.parentElement.querySelector("code").textContent;
    const before = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = button.dataset.copied;
      setTimeout(() => { button.textContent = before; }, 1600);
    } catch {
      const range = document.createRange();
      range.selectNodeContents(button.parentElement.querySelector("code"));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
    }
  });

  // A form says at once that it was sent, and is sent once; back from another page it may be sent again.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post") return;
    if (form.getAttribute("aria-busy") === "true") return event.preventDefault();
    form.setAttribute("aria-busy", "true");
    setTimeout(() => form.removeAttribute("aria-busy"), 15000);
  });
  // What a page asks for by itself keeps no session alive: one that nobody uses ends.
  document.addEventListener("htmx:config:request", (event) => {
    const { ctx } = event.detail;
    if (ctx.sourceEvent?.type === "news") ctx.request.headers["x-birthmark-by-itself"] = "1";
  });
  // What htmx sent is answered in place: a moment later it may be sent again, as another one where it was done.
  const PRESSED_TWICE_MS = 1000;
  document.addEventListener("htmx:finally:request", (event) => {
    const form = event.target.closest("form[aria-busy]");
    if (!form) return;
    const { response } = event.detail.ctx;
    setTimeout(() => {
      form.removeAttribute("aria-busy");
      if (response && response.status < 400 && "resets" in form.dataset) form.reset();
      if (!response || response.status >= 400 || !form.elements.once) return;
      const bytes = crypto.getRandomValues(new Uint8Array(16));
      form.elements.once.value = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    }, PRESSED_TWICE_MS);
  });
  addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[aria-busy]")) form.removeAttribute("aria-busy");
  });

  // A box chooses all of its page; what is done to chosen rows can be pressed when some are.
  const weigh = () => {
    for (const button of document.querySelectorAll("[data-needs]")) {
      button.disabled = !button.form.querySelector(`[name="${button.dataset.needs}"]:checked`);
    }
  };
  document.addEventListener("change", (event) => {
    const name = event.target.dataset?.chooses;
    if (name) for (const one of event.target.form.querySelectorAll(`[name="${name}"]`)) one.checked = event.target.checked;
    weigh();
  });
  document.addEventListener("htmx:finally:request", weigh);
  addEventListener("pageshow", weigh);
  weigh();

  document.addEventListener("keydown", (event) => {
    const search = document.getElementById("search");
    if (!search) return;
    const isTyping = event.target.closest("input, textarea, select, [contenteditable]");
    if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      search.focus();
    }
    const found = document.getElementById("found");
    if (event.key === "Escape" && (event.target === search || found.contains(event.target))) {
      found.replaceChildren();
      search.focus();
    }
    if ((event.key === "ArrowDown" || event.key === "ArrowUp") && (event.target === search || found.contains(event.target))) {
      const links = [...found.querySelectorAll("a")];
      const next = links[links.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1)];
      if (next || links.length) { event.preventDefault(); (next || search).focus(); }
    }
  });
  document.addEventListener("htmx:after:init", (event) => { // what was typed before htmx listened is searched for now
    if (event.target.id === "search" && event.target.value) event.target.dispatchEvent(new Event("search"));
  });
  document.addEventListener("click", (event) => {
    const found = document.getElementById("found");
    if (found && !event.target.closest(".search")) found.replaceChildren();
  });

  // What happens. A part of a page that names its topics is drawn anew, when nobody is at it.
  const standing = document.getElementById("standing");
  if (!standing || !own.dataset.stream) return;
  const counted = new Map(), recent = new Map(); // what waits to be drawn, and of it what came since the last look
  const GATHER_MS = 1000, LOOK_AGAIN_MS = 60000;
  let at = null, timer = 0, last = Date.now(), isBehind = false;
  document.addEventListener("pointermove", (event) => { at = event.target; }, { passive: true });
  document.documentElement.addEventListener("pointerleave", () => { at = null; });

  const parts = () => [...document.querySelectorAll("[data-live]")];
  const isTouched = (part) => {
    const active = document.activeElement;
    const chosen = getSelection();
    if (chosen && !chosen.isCollapsed && part.contains(chosen.anchorNode)) return true;
    if (active && active !== document.body && part.contains(active) && active.matches("input, textarea, select")) return true;
    if (part.querySelector("[data-menu][open]")) return true;
    return !("fixed" in part.dataset) && Boolean(at && part.contains(at) && at.closest("tr, a, button, li, summary"));
  };
  const look = () => {
    timer = 0;
    if (document.hidden) return;
    for (const part of parts()) {
      const topics = part.dataset.live.split(" ");
      if (!isBehind && !topics.some((one) => counted.has(one) || counted.has("*"))) continue;
      if (part.dataset.news && !isBehind) { offer(part, topics); continue; } // it moves nothing, so that it need not wait
      if (isTouched(part)) { again(); continue; }
      htmx.trigger(part, "news");
    }
    recent.clear();
    if (!parts().some((part) => (isBehind || !part.dataset.news) && isTouched(part))) { counted.clear(); isBehind = false; }
    last = Date.now();
  };
  const again = () => { if (!timer) timer = setTimeout(look, GATHER_MS); };
  // A list is not moved under who reads it: it says how much is new, and shows it when asked.
  const offer = (part, topics) => {
    const button = part.querySelector(".news");
    const count = [...topics, "*"].reduce((sum, one) => sum + (recent.get(one) || 0), 0);
    if (!button || !count) return;
    const all = Number(button.dataset.count || 0) + count;
    button.dataset.count = all;
    button.textContent = words(part, "news", { n: new Intl.NumberFormat(root.lang).format(all) });
    button.hidden = false;
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".news");
    if (!button) return;
    button.hidden = true;
    button.dataset.count = 0;
    htmx.trigger(button.closest("[data-live]"), "news");
  });
  const say = (name, kind = "") => {
    standing.hidden = !name;
    standing.className = `standing ${kind}`;
    if (!name) return;
    const time = new Intl.DateTimeFormat(root.lang, { timeStyle: "medium", hourCycle: "h23" }).format(last);
    standing.textContent = words(standing, name, { time });
  };

  const safe = typeof trustedTypes === "undefined" ? { createScriptURL: (text) => text }
    : trustedTypes.createPolicy("birthmark", { createScriptURL: (text) => { if (text.startsWith("/files/")) return text; throw new TypeError(text); } });
  // The graph of rates is big: it is loaded when somebody opens it.
  document.addEventListener("toggle", (event) => {
    const graph = event.target.querySelector?.("[data-graph]");
    if (!graph || !event.target.open || graph.dataset.loaded) return;
    graph.dataset.loaded = "yes";
    for (const name of ["uplot", "rates"]) {
      const script = document.createElement("script");
      script.nonce = own.nonce;
      script.async = false;
      script.src = safe.createScriptURL(graph.dataset[name]);
      document.head.append(script);
    }
  }, true);
  const url = safe.createScriptURL(own.dataset.stream);
  const port = typeof SharedWorker === "undefined" ? new Worker(url) : new SharedWorker(url).port;
  // What happened between the drawing of this page and the first word of the stream is asked for once.
  let isJoined = false;
  const join = async () => {
    isJoined = true;
    try {
      const answer = await fetch(`/news?after=${encodeURIComponent(document.body.dataset.place)}`, { headers: { "x-birthmark-by-itself": "1" } });
      if (answer.ok && !answer.redirected) count(await answer.json());
    } catch { isBehind = true; again(); }
  };
  const count = (news) => {
    if (!Object.keys(news).length) return;
    for (const [topic, number] of Object.entries(news)) {
      for (const one of [counted, recent]) one.set(topic, (one.get(topic) || 0) + number);
    }
    again();
  };
  port.onmessage = ({ data }) => {
    if (data.open && !isJoined) join();
    if (data.away) say("away");
    if (data.back) { say("back", "is-back"); isBehind = true; again(); setTimeout(() => { if (standing.classList.contains("is-back")) say(""); }, 4000); }
    if (data.ended) {
      say("ended", "is-ended");
      const link = document.createElement("a");
      link.href = `/signin?next=${encodeURIComponent(location.pathname + location.search)}`;
      link.textContent = standing.dataset.signin;
      standing.append(" ", link);
    }
    if (data.news) count(data.news);
    if (data.rates && Object.keys(data.rates).length) document.dispatchEvent(new CustomEvent("rates", { detail: data.rates }));
  };
  const seen = () => {
    port.postMessage({ seen: !document.hidden });
    if (!document.hidden && Date.now() - last > 5000) { isBehind = true; again(); }
  };
  document.addEventListener("visibilitychange", seen);
  addEventListener("pagehide", () => port.postMessage({ left: true }));
  addEventListener("pageshow", seen);
  // What no event tells of, such as messages, is asked for while it is looked at.
  setInterval(() => {
    if (document.hidden || standing.classList.contains("is-ended")) return;
    for (const one of document.querySelectorAll("[data-poll]")) if (!isTouched(one) && one.checkVisibility()) htmx.trigger(one, "news");
  }, 2000);
  setInterval(() => { if (!document.hidden && Date.now() - last > LOOK_AGAIN_MS) { isBehind = true; again(); } }, 10000);
  document.body.addEventListener("htmx:after:swap", () => dress(document));
  seen();
})();
