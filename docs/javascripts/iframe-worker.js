// Search in pages opened from a folder: browsers start no worker there, so its script runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(script) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.srcdoc = `<script src="${new URL(script, document.baseURI)}"></script>`;
      this.ready = new Promise((resolve) => this.frame.addEventListener("load", resolve, { once: true }));
      this.ready.then(() => (this.frame.contentWindow.postMessage = (data) => this.tell(this, data)));
      document.body.append(this.frame);
    }

    tell(target, data) {
      target.dispatchEvent(new MessageEvent("message", { data }));
    }

    async postMessage(data) {
      await this.ready;
      this.tell(this.frame.contentWindow, data);
    }

    terminate() {
      this.frame.remove();
    }
  };
}
