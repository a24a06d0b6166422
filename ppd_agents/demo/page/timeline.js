// What every step did: a curve of the mask's quality, and the steps in words.

const LEFT = 42, RIGHT = 592, TOP = 12, BOTTOM = 128;

function shape(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

export class Timeline {
  constructor(box, chart, list) {
    Object.assign(this, { box, chart, list });
    this.clear();
  }

  clear() {
    this.phases = [];
    this.list.replaceChildren();
    this.box.hidden = true;
  }

  begin(kind, measure) {
    if (this.phases.length && this.phases[0].measure !== measure) this.clear();
    this.phases.push({ kind, measure, values: [] });
    const title = kind === "attack" ? "Attack" : "Defence";
    this.list.append(element("li", "phase", title));
    this.box.hidden = false;
  }

  add(value, view) {
    const { kind, values } = this.phases.at(-1);
    values.push(value);
    if (values.length > 1) this.list.append(this.line(kind, values.length - 1, value, view));
    this.list.scrollTop = this.list.scrollHeight;
    this.plot();
  }

  line(kind, step, value, view) {
    const line = document.createElement("li");
    const positive = view.touched_labels[0] === 1;
    line.append(element("span", `dot ${positive ? "positive" : "negative"}`, positive ? "+" : "−"));
    const where = view.touched.map(([x, y]) => `(${Math.round(x)}, ${Math.round(y)})`).join(" ");
    const done = kind === "attack" ? "added" : "removed";
    const why = view.reason ? `: ${view.reason}` : "";
    line.append(element("span", "", `${step}. ${done} ${where}${why}`), element("b", "", value.toFixed(3)));
    return line;
  }

  plot() {
    const total = this.phases.reduce((sum, phase) => sum + Math.max(1, phase.values.length - 1), 0);
    const x = (step) => LEFT + ((RIGHT - LEFT) * step) / Math.max(1, total);
    const y = (value) => BOTTOM - (BOTTOM - TOP) * value;
    const parts = [];
    for (const value of [0, 0.5, 1]) {
      parts.push(shape("line", { class: "grid", x1: LEFT, x2: RIGHT, y1: y(value), y2: y(value) }));
      parts.push(shape("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, value));
    }
    let from = 0;
    for (const { kind, values } of this.phases) {
      const points = values.map((value, step) => `${x(from + step)},${y(value)}`).join(" ");
      parts.push(shape("polyline", { class: kind, points }));
      if (values.length)
        parts.push(
          shape("circle", { class: kind, r: 4, cx: x(from + values.length - 1), cy: y(values.at(-1)) }),
        );
      from += Math.max(1, values.length - 1);
    }
    parts.push(shape("text", { x: RIGHT, y: BOTTOM + 18, "text-anchor": "end" }, "steps"));
    parts.push(shape("text", { x: LEFT, y: BOTTOM + 18 }, this.phases[0].measure));
    this.chart.replaceChildren(...parts);
  }
}
