// The search runs in a worker, which browsers refuse to pages that were opened from a disk. There a frame takes its place: it loads the
// worker's script and passes messages on. (The theme asks for `IFrameWorker` where it has to load its languages by itself.)
if (location.protocol === "file:") {
  class IFrameWorker extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = (this.inside = frame.contentWindow);
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inside.importScripts = async (...names) => {
        for (const name of names) await load(inside.document, name);
      };
      load(inside.document, String(url)).then(() => {
        this.waiting.forEach((data) => this.deliver(data));
        this.waiting = null;
      });
    }
    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.deliver(data);
    }
    deliver(data) {
      this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data }));
    }
    terminate() {}
  }
  const load = (page, source) =>
    new Promise((done, failed) => {
      const script = page.createElement("script");
      script.onload = done;
      script.onerror = () => failed(new Error(source));
      script.src = source;
      page.body.append(script);
    });
  window.IFrameWorker = window.Worker = IFrameWorker;
}
