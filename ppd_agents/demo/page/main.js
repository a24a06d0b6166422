// The page: what is loaded, which points are set, and what the buttons do with them.

import { get, lines, post, postForBlob, send } from "./api.js";
import { ReferenceChoice } from "./reference.js";
import { Stage } from "./stage.js";
import { Timeline } from "./timeline.js";

const PAUSE = 380; // milliseconds that a step can be seen
const WITHOUT_REFERENCE = ["ideal", "random"];

const find = (id) => document.getElementById(id);
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
const state = { picture: null, source: null, points: [], past: [], view: null, run: null, asked: 0 };

const stage = new Stage(find("drop"), find("canvas"), {
  onAdd: (point) => edit([...state.points, point]),
  onRemove: (index) => edit(state.points.filter((_, place) => place !== index)),
  onSign: (sign) => (document.querySelector(`[name="sign"][value="${sign}"]`).checked = true),
  onUndo: undo,
});
stage.sign = () => Number(document.querySelector('[name="sign"]:checked').value);
const timeline = new Timeline(find("timeline"), find("chart"), find("steps"));
const reference = new ReferenceChoice(find, refresh, tell);

// ---- what is shown -------------------------------------------------------------------------------------------

function say(text) {
  find("status").textContent = text;
}

function tell(error) {
  if (error?.name === "AbortError") return;
  const box = find("error");
  box.hidden = !error;
  box.firstElementChild.textContent = error ? error.message : "";
}

function refresh() {
  const { picture, points, view, run } = state;
  const idle = Boolean(picture) && !run;
  find("drop").classList.toggle("busy", Boolean(run));
  find("undo").disabled = !idle || !state.past.length;
  find("clear").disabled = !idle || !points.length;
  find("attack").disabled = !idle || !picture.truth;
  find("defend").disabled = !idle || !points.length;
  find("attack").hidden = find("defend").hidden = Boolean(run);
  find("stop").hidden = !run;
  find("attack-hint").hidden = Boolean(picture?.truth);
  find("add-truth").disabled = !idle;
  const alone = WITHOUT_REFERENCE.includes(find("prompter").value);
  const truthful = find("prompter").value !== "ideal" || picture?.truth;
  find("propose").disabled = !idle || !(alone ? truthful : reference.ready);
  for (const button of document.querySelectorAll("[data-download]")) button.disabled = !idle || !points.length;
  find("dice-box").hidden = !picture?.truth;
  const number = (value) => (points.length && value !== null && value !== undefined ? value.toFixed(3) : "–");
  find("dice").textContent = number(view?.dice);
  find("iou").textContent = number(view?.predicted_iou);
  find("count").textContent = points.length;
}

const loaded = (url) =>
  new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("The picture could not be shown."));
    image.src = url;
  });

const asPoints = (view) => view.points.map(([x, y], index) => ({ x, y, label: view.labels[index] }));
const prompts = () => ({
  points: state.points.map(({ x, y }) => [x, y]),
  labels: state.points.map(({ label }) => label),
});

async function showView(view, touched = []) {
  const mask = await loaded(view.mask);
  Object.assign(state, { view, points: asPoints(view) });
  stage.update({ mask: view.points.length ? mask : null, points: state.points, touched });
  refresh();
}

// ---- pictures ------------------------------------------------------------------------------------------------

// A source knows how to bring the picture to the server, again where the server has put it away meanwhile.
const fromFile = (file) => ({ make: () => send("/api/pictures", file) });
const fromExample = (index) => ({ index, make: () => post(`/api/examples/${index}`, {}) });

async function bring(source) {
  const picture = await source.make();
  if (!source.mask) return picture;
  return send(`/api/pictures/${picture.id}/mask`, source.mask, "PUT");
}

async function open(source) {
  stop();
  tell(null);
  say("Loading …");
  const turn = (state.asked += 1);
  try {
    const picture = await bring(source);
    const image = await loaded(`/api/pictures/${picture.id}/image`);
    const truth = picture.truth ? await loaded(`/api/pictures/${picture.id}/truth`) : null;
    if (turn !== state.asked) return;
    if (state.picture) forget(state.picture);
    Object.assign(state, { picture, source, points: [], past: [], view: null });
    find("matched").checked = false;
    timeline.clear();
    stage.show(picture, image, truth);
    const hint = picture.truth ? "Click on the object, or press Attack." : "Click on the object.";
    say(`${picture.name}, ${picture.width} × ${picture.height} pixels. ${hint}`);
  } catch (error) {
    say("");
    tell(error);
  }
  for (const [index, button] of [...find("examples").children].entries())
    button.setAttribute("aria-pressed", String(index === state.source?.index));
  refresh();
}

const forget = ({ id }) => fetch(`/api/pictures/${id}`, { method: "DELETE" }).catch(() => {});

// Runs work(id) for the picture; where the server has put the picture away, brings it there first.
async function withPicture(work) {
  try {
    return await work(state.picture.id);
  } catch (error) {
    if (error.status !== 404) throw error;
    state.picture = await bring(state.source);
    return work(state.picture.id);
  }
}

async function addTruth(file) {
  tell(null);
  try {
    const picture = await withPicture((id) => send(`/api/pictures/${id}/mask`, file, "PUT"));
    const truth = await loaded(`/api/pictures/${picture.id}/truth`);
    Object.assign(state, { picture });
    state.source.mask = file;
    stage.update({ truth });
    timeline.clear();
    say("Ground truth added: Dice is measured, and Attack can be played.");
    await segment();
  } catch (error) {
    tell(error);
  }
  refresh();
}

// ---- points --------------------------------------------------------------------------------------------------

// What Undo goes back to.
const moment = () => ({ points: state.points, matched: find("matched").checked });

function edit(points) {
  if (!state.picture || state.run) return;
  state.past.push(moment());
  state.points = points;
  timeline.clear();
  segment();
}

function undo() {
  if (state.run || !state.past.length) return;
  const { points, matched } = state.past.pop();
  state.points = points;
  find("matched").checked = matched;
  timeline.clear();
  segment();
}

async function segment() {
  tell(null);
  const turn = (state.asked += 1);
  stage.update({ points: state.points, touched: [] });
  refresh();
  try {
    const view = await withPicture((id) => post(`/api/pictures/${id}/segment`, prompts()));
    if (turn === state.asked) await showView(view);
  } catch (error) {
    if (turn === state.asked) tell(error);
  }
}

async function propose() {
  tell(null);
  const turn = (state.asked += 1);
  const prompter = find("prompter").value;
  const ask = (id) =>
    post(`/api/pictures/${id}/propose`, {
      prompter,
      reference: reference.ready ? reference.picture.id : null,
    });
  try {
    const view = await withPicture(ask).catch(async (error) => {
      if (error.status !== 404 || !reference.ready) throw error;
      await reference.load();
      return withPicture(ask);
    });
    if (turn !== state.asked) return;
    state.past.push(moment());
    timeline.clear();
    // The defender has a rule of its own for such points.
    find("matched").checked = !WITHOUT_REFERENCE.includes(prompter);
    await showView(view);
    say(`${view.points.length} points proposed by ${prompter}.`);
  } catch (error) {
    tell(error);
  }
}

// ---- attack and defence --------------------------------------------------------------------------------------

function stop() {
  state.run?.abort();
}

const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, calm.matches ? 0 : milliseconds));
const measured = (view) => view.dice ?? view.predicted_iou;

async function play(kind) {
  tell(null);
  const run = new AbortController();
  const before = moment();
  state.asked += 1;
  state.run = run;
  refresh();
  const measure = state.picture.truth ? "Dice" : "Predicted IoU";
  const values = [];
  try {
    const body = { ...prompts(), budget: Number(find("budget").value), matched: find("matched").checked };
    const steps = await withPicture(async (id) => {
      const all = lines(`/api/pictures/${id}/${kind}`, body, run.signal);
      return { first: await all.next(), all };
    });
    state.past.push(before);
    if (kind === "attack") find("matched").checked = false;
    timeline.begin(kind, measure);
    const step = async (line) => {
      if (run.signal.aborted) return;
      if (line.end) return say(summary(kind, measure, values, line.end));
      const gone = kind === "defend";
      await showView(line, line.touched.map(([x, y]) => ({ x, y, gone })));
      values.push(measured(line));
      timeline.add(values.at(-1), line);
      say(`${kind === "attack" ? "Attack" : "Defence"}, step ${values.length - 1}: ${measure} ${values.at(-1).toFixed(3)}`);
      await wait(PAUSE);
    };
    await step(steps.first.value);
    for await (const line of steps.all) await step(line);
  } catch (error) {
    tell(error);
  }
  if (run.signal.aborted && values.length) say(summary(kind, measure, values, "stopped by you"));
  if (state.run === run) state.run = null;
  refresh();
}

function summary(kind, measure, values, end) {
  const name = kind === "attack" ? "The attacker added" : "The defender removed points in";
  const steps = values.length - 1;
  const many = kind === "attack" ? `${steps} point${steps === 1 ? "" : "s"}` : `${steps} step${steps === 1 ? "" : "s"}`;
  return `${name} ${many}: ${measure} ${values[0].toFixed(3)} → ${values.at(-1).toFixed(3)}; ${end}.`;
}

// ---- downloads -----------------------------------------------------------------------------------------------

async function download(name) {
  tell(null);
  try {
    const content = prompts();
    const blob =
      name === "points.json"
        ? new Blob([JSON.stringify(content, null, 2)], { type: "application/json" })
        : await withPicture((id) => postForBlob(`/api/pictures/${id}/${name}`, content));
    const url = URL.createObjectURL(blob);
    Object.assign(document.createElement("a"), { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  } catch (error) {
    tell(error);
  }
}

// ---- beginning -----------------------------------------------------------------------------------------------

function chooseFile(button, input, use) {
  find(button).addEventListener("click", () => find(input).click());
  find(input).addEventListener("change", () => {
    const [file] = find(input).files;
    find(input).value = "";
    if (file) use(file);
  });
}

function acceptDrops() {
  const box = find("drop");
  for (const name of ["dragenter", "dragover", "dragleave", "drop"])
    window.addEventListener(name, (event) => {
      event.preventDefault();
      box.classList.toggle("over", name === "dragenter" || name === "dragover");
    });
  window.addEventListener("drop", (event) => {
    const file = event.dataTransfer?.files[0];
    if (file) open(fromFile(file));
  });
  window.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])][0];
    if (file) open(fromFile(file));
  });
}

function offerExamples(names) {
  const buttons = names.map((name, index) => {
    const image = Object.assign(new Image(), { src: `/api/examples/${index}/thumbnail`, alt: name, loading: "lazy" });
    const button = Object.assign(document.createElement("button"), { type: "button", title: name });
    button.append(image);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => open(fromExample(index)));
    return button;
  });
  find("examples").replaceChildren(...buttons);
}

async function start() {
  const about = await get("/api/about");
  for (const [name, [red, green, blue]] of Object.entries(about.colours))
    document.documentElement.style.setProperty(`--${name}`, `rgb(${red} ${green} ${blue})`);
  find("models").textContent = `segmenter ${about.segmenter}, features ${about.features}`;
  find("budget").max = about.largest_budget;
  offerExamples(about.examples);
  reference.offer(about.examples);
  const option = (name) => Object.assign(document.createElement("option"), { value: name, text: name });
  find("prompter").replaceChildren(...about.prompters.map(option));
  find("prompter").value = "matching";
  refresh();
}

chooseFile("open", "file", (file) => open(fromFile(file)));
find("open-too").addEventListener("click", () => find("open").click());
chooseFile("add-truth", "truth-file", addTruth);
acceptDrops();
find("undo").addEventListener("click", undo);
find("clear").addEventListener("click", () => {
  edit([]);
  find("matched").checked = false;
});
find("attack").addEventListener("click", () => play("attack"));
find("defend").addEventListener("click", () => play("defend"));
find("stop").addEventListener("click", stop);
find("propose").addEventListener("click", propose);
find("prompter").addEventListener("change", refresh);
find("budget").addEventListener("input", () => (find("budget-value").textContent = find("budget").value));
find("error").lastElementChild.addEventListener("click", () => tell(null));
for (const button of document.querySelectorAll("[data-download]"))
  button.addEventListener("click", () => download(button.dataset.download));
start().catch(tell);
