// What plays: its snapshots and its fader, and the MIDI map.

import { control, make, pick, text } from "./control.js";
import { ask, on, state } from "./state.js";

const $ = (id) => document.getElementById(id);

let moved = -Infinity;
let later = 0;

function settle() {
  const range = $("moves").querySelector(".morph input");
  // A hand that moves it knows better, but only as long as it does.
  const wait = moved + 1000 - performance.now();
  clearTimeout(later);
  if (wait > 0) later = setTimeout(settle, wait);
  else if (range) place(range);
}

on("morph", settle);

function place(range) {
  range.value = state.morph?.position ?? 0;
  range.style.setProperty("--at", range.value / 100);
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
    place(range);
    let next = null;
    range.oninput = () => {
      moved = performance.now();
      range.style.setProperty("--at", range.value / 100);
      if (next === null) requestAnimationFrame(() => (ask("morph", { position: next }), (next = null)));
      next = Number(range.value);
    };
    found.push(make("label", { className: "morph" }, make("span", { textContent: `Morph to ${chain.morph.split("/").at(-1)}` }), range));
  }
  return found;
}

let shape = "";
let saved = {};

on("chain", (chain) => {
  document.title = `${chain.name} · rtgan`;
  $("name").textContent = chain.name;
  $("name").title = [chain.description, chain.notes].filter(Boolean).join("\n");
  saved = chain.saved;
  // A fader that goes from one chain to another must not be taken out of the hand that moves it.
  const now = JSON.stringify([chain.id, chain.snapshots, chain.morph, chain.own]);
  if (now !== shape) $("moves").replaceChildren(...moves(chain));
  shape = now;
  if (!$("volume").firstChild)
    for (const name of ["host.volume_db", "host.monitor_db", "host.monitor_mix"])
      if (name in chain.host) $("volume").append(control(name, chain.host[name]));
  showTargets();
});

on("values chain", () => {
  const differs = Object.keys(saved).some((name) => name in state.values && Math.abs(state.values[name] - saved[name]) > 1e-9 * Math.abs(saved[name]));
  $("edited").hidden = !differs && !state.chain?.edited;
  for (const name of ["bypass", "mute"]) $(name).setAttribute("aria-pressed", state.values[`host.${name}`] >= 0.5);
});

// --- learning ---

$("pick").onclick = () => {
  const on = $("pick").getAttribute("aria-pressed") !== "true";
  $("pick").setAttribute("aria-pressed", on);
  pick(on);
  if (!on) ask("learn", { target: "" });
};

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
