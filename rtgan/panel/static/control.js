// A parameter as a control: slider or switch, value with unit, its default, its MIDI control.

import { ask, on, set, state } from "./state.js";

export const make = (tag, fields = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), fields);
  made.append(...children);
  return made;
};

const STEPS = 1000;
const clamp = (x) => Math.min(1, Math.max(0, x));

export function position(param, value) {
  if (param.scale === "log") return Math.log(value / param.low) / Math.log(param.high / param.low);
  return (value - param.low) / (param.high - param.low);
}

export function plain(param, at) {
  const x = clamp(at);
  const value = param.scale === "log" ? param.low * (param.high / param.low) ** x : param.low + x * (param.high - param.low);
  // No more digits than a person could mean.
  const span = param.scale === "log" ? value : param.high - param.low;
  const digits = Math.max(0, 3 - Math.floor(Math.log10(span)) - (param.scale === "log" ? 1 : 0));
  return Math.min(param.high, Math.max(param.low, Number(value.toFixed(Math.min(digits, 6)))));
}

export function text(param, value) {
  if (value === undefined) return "";
  if (param.scale === "switch") return value >= 0.5 ? "on" : "off";
  const size = Math.abs(value);
  return String(Number(value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2)));
}

const shown = new Map();

on("values", (changed) => {
  for (const name of Object.keys(changed)) for (const show of shown.get(name) ?? []) show();
});

function watch(name, element, show) {
  show.element = element;
  shown.set(name, [...(shown.get(name) ?? []).filter((other) => other.element.isConnected), show]);
  show();
}

let serial = 0;

/** One parameter: `name` is `plugin.param`, `param` its declaration. */
export function control(name, param) {
  const id = `c${serial++}`;
  const row = make("div", { className: `control ${param.scale}` });
  row.dataset.name = name;
  const label = make("label", { htmlFor: id, textContent: param.name, title: param.description });
  const chip = make("button", { className: "chip midi", type: "button", hidden: true });
  chip.onclick = () => ask("learn", { target: name });
  row.append(label, chip);
  row.append(...(param.scale === "switch" ? toggle(id, name, param) : slider(id, name, param)));
  bound(chip, name, param);
  return row;
}

function toggle(id, name, param) {
  const box = make("input", { type: "checkbox", id, title: param.description });
  box.setAttribute("role", "switch");
  box.onchange = () => set(name, box.checked ? 1 : 0);
  watch(name, box, () => (box.checked = state.values[name] >= 0.5));
  return [box];
}

function slider(id, name, param) {
  const range = make("input", { type: "range", id, min: 0, max: STEPS, step: "any" });
  range.title = `${param.description} Double-click or Delete: ${text(param, param.default)} ${param.unit}`.trim();
  const field = make("input", { className: "value", inputMode: "decimal", autocomplete: "off" });
  field.setAttribute("aria-label", `${param.name}${param.unit ? `, ${param.unit}` : ""}`);
  const unit = make("span", { className: "unit", textContent: param.unit });
  let held = false;
  let writing = false;

  const show = () => {
    const value = state.values[name];
    if (value === undefined) return;
    const at = clamp(position(param, value));
    if (!held) range.value = at * STEPS;
    range.style.setProperty("--at", at);
    range.setAttribute("aria-valuetext", `${text(param, value)} ${param.unit}`.trim());
    if (!writing) field.value = text(param, value);
  };
  const go = (at) => {
    set(name, plain(param, at));
    show();
  };
  const reset = () => {
    set(name, param.default);
    held = false;
    show();
  };
  range.oninput = () => go(range.value / STEPS);
  range.ondblclick = reset;
  range.onkeydown = (event) => {
    const fine = event.shiftKey ? 0.1 : 1;
    const step = { ArrowRight: 0.01, ArrowUp: 0.01, ArrowLeft: -0.01, ArrowDown: -0.01, PageUp: 0.1, PageDown: -0.1 }[event.key];
    if (event.key === "Delete" || event.key === "Backspace") reset();
    else if (step) go(position(param, state.values[name]) + step * fine);
    else return;
    event.preventDefault();
  };
  range.onpointerdown = (event) => {
    held = true;
    if (!event.shiftKey) return;
    // With shift the hand goes ten times as far.
    event.preventDefault();
    const [x, at] = [event.clientX, position(param, state.values[name])];
    range.setPointerCapture(event.pointerId);
    range.onpointermove = (move) => {
      held = false;
      go(at + (0.1 * (move.clientX - x)) / range.clientWidth);
    };
  };
  range.onpointerup = range.onpointercancel = range.onlostpointercapture = () => {
    held = false;
    range.onpointermove = null;
    show();
  };
  const commit = () => {
    const value = Number(field.value.replace(",", "."));
    const fine = field.value.trim() !== "" && value >= param.low && value <= param.high;
    field.toggleAttribute("aria-invalid", !fine);
    if (fine) set(name, value);
    writing = !fine;
    return fine;
  };
  field.onfocus = () => field.select();
  field.oninput = () => (writing = true);
  field.onkeydown = (event) => {
    if (event.key === "Enter" && commit()) field.select();
    if (event.key === "Escape") {
      writing = false;
      field.value = text(param, state.values[name]);
      field.removeAttribute("aria-invalid");
      field.blur();
    }
  };
  field.onblur = () => {
    if (writing) commit();
    writing = false;
    field.removeAttribute("aria-invalid");
    show();
  };
  watch(name, range, show);
  return [range, make("span", { className: "entry" }, field, unit)];
}

const chips = new Set();
let picking = false;

/** Whether every parameter offers to be learned. */
export function pick(on) {
  picking = on;
  for (const entry of chips) showBound(entry);
}

function bound(chip, name, param) {
  const entry = { chip, name, param };
  chips.add(entry);
  showBound(entry);
}

function showBound({ chip, name, param }) {
  const row = state.midi?.map.find((r) => r.target === name);
  const learning = state.midi?.learning === name;
  chip.hidden = !row && !learning && !picking;
  chip.textContent = learning ? "move a control" : (row?.control ?? "learn");
  chip.classList.toggle("live", learning);
  chip.setAttribute("aria-label", learning ? `Learning ${param.name}: move a control` : row ? `${param.name} is moved by ${row.control}; learn another` : `Learn a control for ${param.name}`);
}

on("midi", () => {
  for (const entry of chips) {
    if (entry.chip.isConnected) showBound(entry);
    else chips.delete(entry);
  }
});
