// A pad that turns two parameters at once; the two sliders below it do the same for the keyboard.

import { control, make, plain, position } from "./control.js";
import { on, set, state } from "./state.js";

const $ = (id) => document.getElementById(id);
const axes = { x: $("pad-x"), y: $("pad-y") };
const turned = () => state.chain.strips.flatMap((s) => Object.entries(s.params).filter(([, p]) => p.scale !== "switch").map(([name, param]) => [name, param, s]));
const memory = () => `rtgan-pad-${state.chain.id}`;
let built = "";

function chosen() {
  const params = Object.fromEntries(turned());
  return Object.values(axes).map(({ value }) => [value, params[value]]);
}

function dot() {
  const place = ([name, param]) => (param && name in state.values ? Math.min(1, Math.max(0, position(param, state.values[name]))) : 0.5);
  const [x, y] = chosen().map(place);
  $("pad-dot").style.left = `${100 * x}%`;
  $("pad-dot").style.top = `${100 * (1 - y)}%`;
}

function sliders() {
  const [x, y] = chosen();
  const same = x[0] === y[0];
  $("pad-sliders").replaceChildren(...(same ? [x] : [x, y]).map(([name, param]) => control(name, param)));
  dot();
}

function build() {
  const found = turned();
  $("pad").hidden = found.length < 2;
  if (found.length < 2) return;
  const own = found.filter(([name]) => !name.endsWith(".mix"));
  const known = Object.fromEntries(found);
  const kept = JSON.parse(localStorage.getItem(memory()) ?? "[]");
  const first = (own.length > 1 ? own : found).slice(0, 2).map(([name]) => name);
  for (const [k, select] of Object.values(axes).entries()) {
    const groups = state.chain.strips.map((s) => make("optgroup", { label: s.plugin }, ...found.filter(([, , strip]) => strip === s).map(([value, param]) => make("option", { value, textContent: `${s.plugin}: ${param.name}` }))));
    select.replaceChildren(...groups);
    select.value = kept[k] in known ? kept[k] : first[k];
  }
  sliders();
}

for (const select of Object.values(axes)) {
  select.onchange = () => {
    localStorage.setItem(memory(), JSON.stringify(Object.values(axes).map((each) => each.value)));
    sliders();
  };
}

on("chain", (chain) => {
  const now = JSON.stringify([chain.id, chain.strips]);
  if (now !== built) build();
  built = now;
});
on("values", () => $("pad").open && dot());
$("pad").addEventListener("toggle", dot);

const area = $("pad-area");
const go = (event) => {
  const box = area.getBoundingClientRect();
  const at = [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height];
  chosen().forEach(([name, param], k) => param && set(name, plain(param, at[k])));
  dot();
};
area.onpointerdown = (event) => {
  if (state.lock.on) return;
  event.preventDefault();
  area.setPointerCapture(event.pointerId);
  area.onpointermove = go;
  go(event);
};
area.onpointerup = area.onpointercancel = () => (area.onpointermove = null);
area.ondblclick = () => {
  if (state.lock.on) return;
  chosen().forEach(([name, param]) => set(name, param.default));
  dot();
};
