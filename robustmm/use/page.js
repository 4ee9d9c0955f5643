"use strict";
const body = document.body.dataset;
const samples = Number(body.samples);
const dense = body.dense === "true";
const continuous = body.continuous === "true";
const $ = (id) => document.getElementById(id);
let sample = null;
let shown = new Set();
let asked = 0;
let mix = 80;

/** An element with text, attributes and children; text is never read as markup. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

const percent = (value) => `${(100 * value).toFixed(1)} %`;
const plain = (value) => (value === null || value === undefined ? "" : String(Number(value.toPrecision(4))));

async function ask(address, options) {
  const number = ++asked;
  let answer;
  try {
    const response = await fetch(address, options);
    answer = await response.json();
  } catch (error) {
    answer = { error: "the server does not answer" };
  }
  if (number !== asked) return;
  $("message").hidden = !answer.error;
  $("message").textContent = answer.error || "";
  if (answer.error) return hide();
  sample = answer;
  const given = sample.inputs.filter((one) => one.given).map((one) => one.name);
  const kept = given.filter((name) => shown.has(name));
  shown = new Set(kept.length ? kept : given);
  $("content").hidden = $("table-section").hidden = false;
  $("sample-id").textContent = sample.id;
  render();
}

function hide() {
  sample = null;
  $("content").hidden = $("table-section").hidden = true;
}

function current() {
  return sample.combinations.find((one) => one.modalities.length === shown.size && one.modalities.every((name) => shown.has(name)));
}

function render() {
  renderInputs();
  renderPrediction(current());
  renderTable(current());
}

function renderInputs() {
  $("inputs").replaceChildren(...sample.inputs.map(inputCard));
}

function inputCard(input) {
  const box = element("input", { type: "checkbox", disabled: !input.given, checked: shown.has(input.name) });
  box.checked = shown.has(input.name);
  box.addEventListener("change", () => {
    box.checked ? shown.add(input.name) : shown.delete(input.name);
    render();
    const again = [...document.querySelectorAll("#inputs input")].find((one) => one.dataset.name === input.name);
    if (again) again.focus();
  });
  box.dataset.name = input.name;
  const head = element("span", { class: "head" }, box, element("span", { class: "name" }, input.name));
  const words = [`${input.kind} ${input.shape}`, input.unit, input.note].filter(Boolean).join(", ");
  const view = !input.given
    ? element("span", { class: "absent" }, "not given")
    : input.picture
      ? element("img", { src: input.picture, alt: `${input.name} of the sample` })
      : chart(input);
  return element("label", { class: input.given ? "input" : "input never" }, head, view, element("span", { class: "muted" }, words));
}

function chart(input) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 100 100");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `values of ${input.name}`);
  const all = input.lines.flat();
  const low = Math.min(0, ...all);
  const range = Math.max(0, ...all) - low || 1;
  const high = (value) => 96 - (92 * (value - low)) / range;
  input.lines.forEach((line, place) => {
    const path = document.createElementNS(space, "path");
    const step = 100 / line.length;
    const bars = input.lines.length === 1;
    const points = line.map((value, x) =>
      bars ? `M${(x + 0.5) * step} ${high(0)}V${high(value)}` : `${x ? "L" : "M"}${(x + 0.5) * step} ${high(value)}`,
    );
    path.setAttribute("d", points.join(""));
    path.setAttribute("fill", "none");
    path.setAttribute("stroke", bars ? "var(--bar)" : `hsl(${(210 + 137 * place) % 360} 55% 50%)`);
    path.setAttribute("stroke-width", bars ? Math.max(1, Math.min(6, 320 / line.length)) : 1.5);
    path.setAttribute("vector-effect", "non-scaling-stroke");
    svg.append(path);
  });
  return svg;
}

function renderPrediction(found) {
  if (!shown.size) return $("prediction").replaceChildren(element("p", { class: "muted" }, "Nothing is left to predict from: tick a modality."));
  if (!found) return $("prediction").replaceChildren(element("p", { class: "muted" }, "This combination is not among those in the table."));
  const from = element("p", { class: "muted" }, `from ${found.modalities.join(" + ")}`);
  const parts = [from, ...(dense ? mapParts(found) : continuous ? valueParts(found) : labelParts(found))];
  if (found.uncertainty !== null) {
    parts.push(element("p", { class: "muted" }, `uncertainty ${plain(found.uncertainty)} (higher is less sure)`));
  }
  $("prediction").replaceChildren(...parts);
}

function labelParts(found) {
  const verdict = found.right === null ? "" : found.right ? " right" : " wrong";
  const parts = [element("p", { class: `answer${verdict}` }, found.label || "not finite")];
  if (sample.target) {
    const words = found.right ? "as labelled" : `labelled ${sample.target.label}`;
    parts.push(element("p", { class: "muted" }, words));
  }
  return [...parts, bars(found.bars)];
}

function valueParts(found) {
  const known = new Map(sample.target ? sample.target.values : []);
  return found.values.map(([name, value, scale]) =>
    element(
      "div",
      {},
      element("p", { class: "answer" }, `${plain(value)}${scale ? ` ± ${plain(scale)}` : ""}`),
      element("p", { class: "muted" }, `${name}${known.has(name) ? `, measured ${plain(known.get(name))}` : ""}`),
    ),
  );
}

function mapParts(found) {
  const below = sample.inputs.find((one) => one.name === found.below).picture;
  const picture = (source, text) => {
    const layers = element("div", { class: "layers" }, element("img", { src: below, alt: "" }), element("img", { src: source, alt: text }));
    return element("figure", {}, layers, element("figcaption", {}, text));
  };
  const words = found.score === null ? "predicted" : `predicted, mean IoU ${percent(found.score)}`;
  const pictures = [picture(found.picture, words)];
  if (sample.target) pictures.push(picture(sample.target.picture, "label"));
  return [element("div", { class: sample.target ? "pair" : "" }, ...pictures), mixer(), bars(found.bars)];
}

/** How much of the classes' colours lies over the picture. */
function mixer() {
  const slider = element("input", { type: "range", min: 0, max: 100, value: mix });
  const set = () => $("prediction").style.setProperty("--mix", mix / 100);
  slider.addEventListener("input", () => {
    mix = Number(slider.value);
    set();
  });
  set();
  return element("label", { class: "mixer muted" }, "picture", slider, "classes");
}

function bars(rows) {
  const cells = rows.flatMap(([name, value, colour]) => [
    element("span", {}, name),
    track(value, colour),
    element("span", { class: "value" }, percent(value)),
  ]);
  return element("div", { class: "bars" }, ...cells);
}

function track(value, colour) {
  const fill = element("i");
  fill.style.width = `${100 * value}%`;
  if (colour) fill.style.background = colour;
  const made = element("span", { class: "track" }, fill);
  return made;
}

function renderTable(found) {
  const quantity = continuous ? sample.combinations[0].values.map(([name]) => name) : [];
  const last = dense ? (sample.target ? ["mean IoU", "largest class"] : ["largest class"]) : continuous ? quantity : ["predicted", "probability"];
  const header = element("thead", {}, element("tr", {}, ...["combination", ...last, "uncertainty"].map((text) => element("th", { scope: "col" }, text))));
  const rows = sample.combinations.map((one) => row(one, one === found));
  $("table").replaceChildren(header, element("tbody", {}, ...rows));
}

function row(one, chosen) {
  const button = element("button", { type: "button" }, one.name);
  const made = element("tr", { "aria-current": chosen ? "true" : null }, element("td", {}, button));
  made.append(...resultCells(one), element("td", {}, one.uncertainty === null ? "-" : plain(one.uncertainty)));
  made.addEventListener("click", () => {
    shown = new Set(one.modalities);
    render();
    const again = document.querySelector('#table tr[aria-current="true"] button');
    if (again) again.focus({ preventScroll: true });
  });
  return made;
}

function resultCells(one) {
  if (dense) {
    const [name, value] = one.bars[0] || ["-", 0];
    const score = one.score === null ? "-" : percent(one.score);
    const cells = sample.target ? [element("td", {}, ...(one.score === null ? [score] : [track(one.score), score]))] : [];
    return [...cells, element("td", {}, `${name} ${percent(value)}`)];
  }
  if (continuous) return one.values.map(([, value, scale]) => element("td", {}, `${plain(value)}${scale ? ` ± ${plain(scale)}` : ""}`));
  const verdict = one.right === null ? "" : one.right ? "right" : "wrong";
  if (!one.label) return [element("td", {}, "not finite"), element("td", {}, "-")];
  const value = one.bars[0][1];
  return [element("td", { class: verdict }, one.label), element("td", {}, track(value), percent(value))];
}

function choose(tab) {
  for (const name of ["test", "files"]) {
    $(`tab-${name}`).setAttribute("aria-selected", name === tab);
    $(`pane-${name}`).hidden = name !== tab;
  }
  $("message").hidden = true;
  tab === "test" ? show(Number($("position").value)) : send();
}

function show(position) {
  const wrapped = ((position % samples) + samples) % samples;
  $("position").value = wrapped;
  ask(`sample/${wrapped}`);
}

function send() {
  const form = new FormData($("pane-files"));
  const given = [...form.values()].some((value) => (typeof value === "string" ? value.trim() : value.size));
  if (!given) {
    asked += 1;
    $("message").hidden = true;
    return hide();
  }
  ask("files", { method: "POST", body: form });
}

$("tab-test").addEventListener("click", () => choose("test"));
$("tab-files").addEventListener("click", () => choose("files"));
$("previous").addEventListener("click", () => show(Number($("position").value) - 1));
$("next").addEventListener("click", () => show(Number($("position").value) + 1));
$("random").addEventListener("click", () => show(Math.floor(Math.random() * samples)));
$("position").addEventListener("change", () => show(Number($("position").value) || 0));
$("pane-files").addEventListener("change", send);
$("pane-files").addEventListener("submit", (event) => event.preventDefault());
$("pane-files").addEventListener("reset", () => setTimeout(send));
choose(samples ? "test" : "files");
