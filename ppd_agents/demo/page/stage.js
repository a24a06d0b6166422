// The picture: draws image, mask, ground truth and points; turns clicks and keys into points.

const HIT = 14; // how near to a point a click removes it, in CSS pixels
const TALLEST = 0.68; // of the window

function tinted(image, width, height, colour, outline) {
  // The stencil in one colour; with an outline, only a band around its edge.
  const layer = Object.assign(document.createElement("canvas"), { width, height });
  const pen = layer.getContext("2d");
  if (outline) {
    for (let turn = 0; turn < 16; turn += 1) {
      const angle = (turn * Math.PI) / 8;
      pen.drawImage(image, outline * Math.cos(angle), outline * Math.sin(angle), width, height);
    }
    pen.globalCompositeOperation = "destination-out";
  }
  pen.drawImage(image, 0, 0, width, height);
  pen.globalCompositeOperation = "source-in";
  pen.fillStyle = colour;
  pen.fillRect(0, 0, width, height);
  return layer;
}

export class Stage {
  constructor(box, canvas, { onAdd, onRemove, onSign, onUndo }) {
    Object.assign(this, { box, canvas, onAdd, onRemove, onSign, onUndo });
    this.pen = canvas.getContext("2d");
    this.points = [];
    this.touched = [];
    this.sign = () => 1;
    canvas.addEventListener("click", (event) => this.press(event, event.shiftKey));
    canvas.addEventListener("contextmenu", (event) => {
      event.preventDefault();
      this.press(event, true);
    });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.moveCross(null));
    new ResizeObserver(() => this.fit()).observe(box);
  }

  show(picture, image, truth) {
    Object.assign(this, { picture, image, truth, mask: null, points: [], touched: [], cross: null });
    this.box.classList.remove("empty");
    this.fit();
  }

  update(change) {
    Object.assign(this, change);
    this.draw();
  }

  fit() {
    if (!this.picture) return;
    const { width, height } = this.picture;
    const room = this.box.clientWidth;
    const scale = Math.min(room / width, (window.innerHeight * TALLEST) / height);
    const size = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
    const dense = window.devicePixelRatio || 1;
    [this.canvas.width, this.canvas.height] = size.map((side) => Math.round(side * dense));
    [this.canvas.style.width, this.canvas.style.height] = size.map((side) => `${side}px`);
    this.dense = dense;
    this.layers = new Map();
    this.draw();
  }

  layer(stencil, colour, outline) {
    const key = `${colour} ${outline}`;
    const kept = this.layers.get(key);
    if (kept?.stencil === stencil) return kept.drawn;
    const drawn = tinted(stencil, this.canvas.width, this.canvas.height, colour, outline);
    this.layers.set(key, { stencil, drawn });
    return drawn;
  }

  draw() {
    if (!this.picture) return;
    const { pen, canvas, dense } = this;
    const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(this.image, 0, 0, canvas.width, canvas.height);
    if (this.mask) {
      pen.globalAlpha = 0.4;
      pen.drawImage(this.layer(this.mask, colour("mask"), 0), 0, 0);
      pen.globalAlpha = 1;
      pen.drawImage(this.layer(this.mask, colour("mask"), 2.2 * dense), 0, 0);
    }
    if (this.truth) {
      pen.drawImage(this.layer(this.truth, "#181a1f", 2.2 * dense), 0, 0);
      pen.drawImage(this.layer(this.truth, colour("truth"), 1.4 * dense), 0, 0);
    }
    for (const point of this.points) this.drawPoint(point, colour);
    for (const point of this.touched) this.drawTouched(point, colour("highlight"));
    if (this.cross) this.drawCross(colour("highlight"));
  }

  place({ x, y }) {
    return [(x / this.picture.width) * this.canvas.width, (y / this.picture.height) * this.canvas.height];
  }

  drawPoint(point, colour) {
    const { pen, dense } = this;
    const [x, y] = this.place(point);
    const disc = (radius, fill) => {
      pen.beginPath();
      pen.arc(x, y, radius * dense, 0, 2 * Math.PI);
      pen.fillStyle = fill;
      pen.fill();
    };
    disc(8.5, "#fff");
    disc(7, colour(point.label ? "positive" : "negative"));
    this.strokes(x, y, 3.6, "#fff", point.label ? [[-1, 0, 1, 0], [0, -1, 0, 1]] : [[-1, 0, 1, 0]]);
  }

  drawTouched({ x, y, gone }, colour) {
    const { pen, dense } = this;
    const [left, top] = this.place({ x, y });
    for (const [width, ink] of [[5, "#181a1f"], [2.5, colour]]) {
      pen.beginPath();
      pen.arc(left, top, 13 * dense, 0, 2 * Math.PI);
      pen.lineWidth = width * dense;
      pen.strokeStyle = ink;
      pen.stroke();
    }
    if (!gone) return;
    const arms = [[-1, -1, 1, 1], [-1, 1, 1, -1]];
    this.strokes(left, top, 7, "#181a1f", arms, 5.5);
    this.strokes(left, top, 6, colour, arms, 2.5);
  }

  drawCross(colour) {
    const [x, y] = this.place(this.cross);
    const arms = [[-1, 0, -0.3, 0], [0.3, 0, 1, 0], [0, -1, 0, -0.3], [0, 0.3, 0, 1]];
    this.strokes(x, y, 17, "#181a1f", arms, 5);
    this.strokes(x, y, 16, colour, arms, 2.5);
  }

  strokes(x, y, reach, colour, strokes, width = 2) {
    const { pen, dense } = this;
    pen.lineWidth = width * dense;
    pen.strokeStyle = colour;
    pen.beginPath();
    for (const [a, b, c, d] of strokes) {
      pen.moveTo(x + a * reach * dense, y + b * reach * dense);
      pen.lineTo(x + c * reach * dense, y + d * reach * dense);
    }
    pen.stroke();
  }

  press(event, other) {
    if (!this.picture) return;
    const area = this.canvas.getBoundingClientRect();
    const scale = this.picture.width / area.width;
    const inside = (value, side) => Math.min(Math.max(value, 0), side - 0.01);
    const x = inside((event.clientX - area.left) * scale, this.picture.width);
    const y = inside((event.clientY - area.top) * (this.picture.height / area.height), this.picture.height);
    this.canvas.focus({ preventScroll: true });
    this.set(x, y, other, HIT * scale);
  }

  set(x, y, other, reach) {
    const near = this.points.findIndex((point) => Math.hypot(point.x - x, point.y - y) <= reach);
    if (near >= 0) this.onRemove(near);
    else this.onAdd({ x, y, label: other ? 1 - this.sign() : this.sign() });
  }

  key(event) {
    if (!this.picture || event.ctrlKey || event.metaKey || event.altKey) return;
    const { width, height } = this.picture;
    const stride = Math.max(width, height) / (event.shiftKey ? 10 : 50);
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const way = ways[event.key];
    if (way) {
      const from = this.cross ?? { x: width / 2, y: height / 2 };
      const keep = (value, side) => Math.min(Math.max(value, 0.5), side - 0.5);
      this.moveCross({ x: keep(from.x + way[0] * stride, width), y: keep(from.y + way[1] * stride, height) });
    } else if (event.key === "Enter" || event.key === " ") {
      const at = this.cross ?? { x: width / 2, y: height / 2 };
      this.moveCross(at);
      this.set(at.x, at.y, event.shiftKey, (HIT * width) / this.canvas.getBoundingClientRect().width);
    } else if (event.key === "p" || event.key === "n") this.onSign(event.key === "p" ? 1 : 0);
    else if (event.key === "Backspace" || event.key === "Delete") this.onUndo();
    else return;
    event.preventDefault();
  }

  moveCross(cross) {
    this.update({ cross });
  }
}
