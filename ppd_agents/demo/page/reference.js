// The reference whose object points are proposed from: an example, or two files of the user's.

import { post, send } from "./api.js";

const NONE = "none", OWN = "own";

export class ReferenceChoice {
  constructor(find, onChange, onError) {
    Object.assign(this, { find, onChange, onError });
    this.chosen = find("reference");
    this.chosen.addEventListener("change", () => this.attempt(() => this.choose()));
    for (const part of ["image", "mask"]) {
      const input = find(`reference-${part}-file`);
      find(`reference-${part}`).addEventListener("click", () => input.click());
      input.addEventListener("change", () => this.attempt(() => this.take(part, input)));
    }
  }

  offer(names) {
    const option = (value, text) => Object.assign(document.createElement("option"), { value, text });
    const group = Object.assign(document.createElement("optgroup"), { label: "Examples" });
    group.append(...names.map((name, index) => option(index, name)));
    this.chosen.replaceChildren(option(NONE, "no reference"), option(OWN, "own image and mask…"), group);
  }

  async attempt(work) {
    try {
      await work();
    } catch (error) {
      this.onError(error);
    }
    this.onChange();
  }

  async choose() {
    this.picture = null;
    this.show();
    const value = this.chosen.value;
    this.find("own-reference").hidden = value !== OWN;
    this.find("reference-mask").disabled = true;
    this.files = {};
    if (value !== NONE && value !== OWN) await this.load();
  }

  async take(part, input) {
    const file = input.files[0];
    input.value = "";
    if (!file) return;
    this.files = part === "image" ? { image: file } : { ...this.files, mask: file };
    await this.load();
  }

  // Brings the reference to the server, again where it was put away there.
  async load() {
    const value = this.chosen.value;
    if (value !== OWN) this.picture = await post(`/api/examples/${value}`, {});
    else {
      this.picture = null;
      const sent = await send("/api/pictures", this.files.image);
      this.find("reference-mask").disabled = false;
      this.picture = this.files.mask ? await send(`/api/pictures/${sent.id}/mask`, this.files.mask, "PUT") : sent;
    }
    this.show();
  }

  get ready() {
    return Boolean(this.picture?.truth);
  }

  show() {
    const box = this.find("reference-shown");
    box.hidden = !this.picture;
    if (!this.picture) return;
    const [image, mask] = box.children;
    image.src = `/api/pictures/${this.picture.id}/image`;
    image.alt = `Reference ${this.picture.name}`;
    mask.hidden = !this.picture.truth;
    if (this.picture.truth) mask.src = `/api/pictures/${this.picture.id}/truth`;
  }
}
