// A page opened from the disk may start no Worker, and the search runs in one. There, and nowhere else, a hidden frame
// takes its place: a window of its own for the worker's script, on the page's thread, with a Worker's messages. It has
// no importScripts, which the search needs for other languages than English.
"use strict";
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    #frame = document.createElement("iframe");
    #scope;

    constructor(url) {
      super();
      const script = document.createElement("script");
      script.src = new URL(url, document.baseURI).href;
      this.#frame.hidden = true;
      this.#frame.srcdoc = `<!doctype html><title>Search</title>${script.outerHTML}`;
      this.#scope = new Promise((resolve) => {
        this.#frame.addEventListener("load", () => resolve(this.#answering()), { once: true });
      });
      document.body.append(this.#frame);
    }

    async postMessage(data) {
      const scope = await this.#scope;
      scope.dispatchEvent(new scope.MessageEvent("message", { data: scope.structuredClone(data) }));
    }

    terminate() {
      this.#frame.remove();
    }

    #answering() {
      const scope = this.#frame.contentWindow;
      scope.postMessage = (data) => {
        this.dispatchEvent(new MessageEvent("message", { data: structuredClone(data) }));
      };
      return scope;
    }
  };
}
