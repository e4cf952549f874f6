// A browser starts no worker for a page that was opened from a folder; the search of the site then runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      this.onmessage = this.onerror = this.onmessageerror = null;
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.postMessage = (data) => setTimeout(() => this.answer(data)); // of the script in the frame, to the page
      this.ready = new Promise((resolve, reject) => {
        const script = inside.document.createElement("script");
        script.onload = () => resolve(inside);
        script.onerror = reject;
        script.src = new URL(address, location.href);
        inside.document.body.append(script);
      });
      this.ready.catch((event) => this.onerror?.(event));
    }

    answer(data) {
      const event = new MessageEvent("message", { data: structuredClone(data) }); // a worker shares no objects
      this.onmessage?.(event);
      this.dispatchEvent(event);
    }

    postMessage(given) {
      const data = structuredClone(given);
      this.ready.then((inside) => inside.dispatchEvent(new inside.MessageEvent("message", { data })), () => {});
    }

    terminate() {
      this.frame.remove();
    }
  };
}
