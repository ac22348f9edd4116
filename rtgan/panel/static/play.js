// The chain, its presets and its controls.

import { control, make, pick, text } from "./control.js";
import { ask, on, state } from "./state.js";

const $ = (id) => document.getElementById(id);

// --- the chain ---

function strip({ label, plugin, description, options, params }) {
  const [bypass, ...others] = Object.entries(params);
  const box = make("article", { className: "strip" });
  const title = make("h2", { textContent: plugin, title: label });
  const chips = Object.entries(options).map(([option, value]) => make("span", { className: "chip", textContent: value.split("/").at(-1), title: `${option} ${value}` }));
  box.append(make("div", { className: "head" }, make("div", {}, title, ...chips), control(...bypass)));
  box.append(make("p", { className: "small", textContent: description }));
  const [mix, ...own] = others;
  for (const [name, param] of [...own, mix]) box.append(control(name, param));
  return box;
}

function moves(chain) {
  const found = chain.snapshots.map((name, k) => {
    const button = make("button", { textContent: name, title: `Snapshot ${k + 1}` });
    button.onclick = () => ask("snapshot", { number: k + 1 });
    return button;
  });
  if (chain.own) {
    const name = make("input", { placeholder: "Snapshot", maxLength: 100, autocomplete: "off", ariaLabel: "Name of the snapshot" });
    const form = make("form", { className: "edit" }, name, make("button", { textContent: "Keep" }));
    form.onsubmit = (event) => {
      event.preventDefault();
      ask("keep", { name: name.value });
      name.value = "";
    };
    found.push(form);
  }
  if (chain.morph) {
    const range = make("input", { type: "range", min: 0, max: 100, step: 0.5, value: 0, ariaLabel: `Morph to ${chain.morph}` });
    let next = null;
    range.oninput = () => {
      range.style.setProperty("--at", range.value / 100);
      if (next === null) requestAnimationFrame(() => (ask("morph", { position: next }), (next = null)));
      next = Number(range.value);
    };
    found.push(make("label", { className: "morph" }, make("span", { textContent: `Morph to ${chain.morph.split("/").at(-1)}` }), range));
  }
  return found;
}

let shape = "";
let built = "";
let saved = {};

on("chain", (chain) => {
  document.title = `${chain.name} · rtgan`;
  $("name").textContent = chain.name;
  $("name").title = [chain.description, chain.notes].filter(Boolean).join("\n");
  saved = chain.saved;
  $("save").disabled = !chain.own;
  $("save").title = chain.own ? "" : "A factory preset stays as it is; save under a name of your own.";
  // What is the same stays, and with it the place of whoever works with the keyboard.
  const strips = JSON.stringify(chain.strips);
  if (strips !== built) $("strips").replaceChildren(...chain.strips.map(strip));
  built = strips;
  // A fader that goes from one chain to another must not be taken out of the hand that moves it.
  const now = JSON.stringify([chain.id, chain.snapshots, chain.morph, chain.own]);
  if (now !== shape) $("moves").replaceChildren(...moves(chain));
  shape = now;
  if (!$("volume").firstChild)
    for (const name of ["host.volume_db", "host.monitor_db", "host.monitor_mix"])
      if (name in chain.host) $("volume").append(control(name, chain.host[name]));
  showTargets();
  showList();
});

on("values chain", () => {
  const differs = Object.keys(saved).some((name) => name in state.values && Math.abs(state.values[name] - saved[name]) > 1e-9 * Math.abs(saved[name]));
  $("edited").hidden = !differs;
  for (const name of ["bypass", "mute"]) $(name).setAttribute("aria-pressed", state.values[`host.${name}`] >= 0.5);
});

// --- presets ---

function showList() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (p) => words.every((w) => `${p.name} ${p.id} ${p.description} ${p.tags.join(" ")}`.toLowerCase().includes(w));
  const rows = state.presets.filter(fits).map((p) => {
    const number = make("span", { className: "number", textContent: p.program === null ? "" : p.program });
    if (p.program !== null) number.title = `MIDI program ${p.program}${p.bank ? ` of bank ${p.bank}` : ""}`;
    const tags = make("span", { className: "tags" }, ...[...(p.own ? ["yours"] : []), ...p.tags].map((textContent) => make("span", { className: "chip", textContent })));
    const words = make("span", { className: "words" }, make("b", { textContent: p.name }), make("span", { className: "small", textContent: p.broken || p.description }));
    const button = make("button", { disabled: Boolean(p.broken) }, number, words, tags);
    if (p.id === state.chain?.id) button.setAttribute("aria-current", "true");
    button.onclick = () => ask("load", { name: p.id });
    return make("li", {}, button);
  });
  $("list").replaceChildren(...rows);
}

on("presets", showList);
$("search").oninput = showList;
$("save").onclick = () => ask("save");
$("save-as").onsubmit = (event) => {
  event.preventDefault();
  const name = $("save-name").value.trim();
  if (name) ask("save", { name });
  $("save-name").value = "";
};
$("pick").onclick = () => {
  const on = $("pick").getAttribute("aria-pressed") !== "true";
  $("pick").setAttribute("aria-pressed", on);
  pick(on);
  if (!on) ask("learn", { target: "" });
};
$("previous").onclick = () => ask("previous");
$("next").onclick = () => ask("next");

// --- MIDI ---

function declared() {
  const chain = state.chain;
  return chain ? Object.assign({}, chain.host, ...chain.strips.map((s) => s.params)) : {};
}

function showTargets() {
  if (!state.chain || !state.midi) return;
  const chosen = $("target").value;
  const group = (label, names) => make("optgroup", { label }, ...names.map(([value, textContent]) => make("option", { value, textContent })));
  const groups = state.chain.strips.map((s) => group(s.label, Object.entries(s.params).map(([k, p]) => [k, `${s.label}: ${p.name}`])));
  $("target").replaceChildren(group("Everything", Object.entries(state.midi.targets)), ...groups);
  $("target").value = chosen;
  if ($("target").selectedIndex < 0) $("target").selectedIndex = 0;
}

let heard = 0;
let mapped = "";

on("midi chain", () => {
  const midi = state.midi;
  if (!midi || !state.chain) return;
  if (midi.last.count !== heard && midi.last.text) {
    $("midi-last").textContent = midi.last.port ? `${midi.last.text} from ${midi.last.port}` : midi.last.text;
    if (heard) flash();
  }
  heard = midi.last.count || heard;
  $("ports").textContent = midi.ports.length ? `Listening on ${midi.ports.join(", ")}` : "No MIDI port is open.";
  $("learn-go").textContent = midi.learning ? "Stop" : "Learn";
  $("learn").classList.toggle("live", Boolean(midi.learning));
  const now = JSON.stringify([midi.map, state.chain.own, state.chain.id]);
  if (now === mapped) return;
  mapped = now;
  showTargets();
  const params = declared();
  const rows = midi.map.map((row) => {
    const param = params[row.target];
    const range = row.low === null || !param ? "all" : `${text(param, row.low)} to ${text(param, row.high)} ${param.unit}`;
    const go = make("button", { textContent: "Forget", ariaLabel: `Forget ${row.control} for ${row.target}` });
    go.disabled = row.where === "preset" && !state.chain.own;
    go.onclick = () => ask("forget", { target: row.target });
    const cells = [row.control, row.target, range, row.mode, row.where === "preset" ? "this preset" : "every preset"];
    return make("tr", {}, ...cells.map((textContent) => make("td", { textContent })), make("td", {}, go));
  });
  $("map").replaceChildren(...rows);
});

function flash() {
  $("midi-lamp").classList.add("on");
  clearTimeout(flash.timer);
  flash.timer = setTimeout(() => $("midi-lamp").classList.remove("on"), 150);
}

$("learn").onsubmit = (event) => {
  event.preventDefault();
  ask("learn", { target: state.midi?.learning ? "" : $("target").value });
};
