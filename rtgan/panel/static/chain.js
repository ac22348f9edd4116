// The chain: a strip per plugin, and what changes the chain itself.

import { control, make } from "./control.js";
import { ask, on, state } from "./state.js";

const $ = (id) => document.getElementById(id);
const change = (what, name, position = 0) => ask("chain", { what, name, position });

function strip({ label, plugin, description, options, params, card }) {
  const [bypass, mix, ...own] = Object.entries(params);
  const box = make("article", { className: "strip" });
  box.dataset.label = label;
  const title = make("h2", { textContent: plugin, title: label });
  const chips = Object.entries(options).map(([option, value]) => make("span", { className: "chip", textContent: value.split("/").at(-1), title: `${option} ${value}` }));
  box.append(make("div", { className: "head" }, make("div", {}, title, ...chips), control(...bypass)), tools(box, label, plugin));
  box.append(make("p", { className: "small", textContent: description }));
  for (const [name, param] of [...own, mix]) box.append(control(name, param));
  box.append(make("dl", { className: "readings" }));
  if (card.length) box.append(cardOf(card));
  return box;
}

// --- what the plugins read ---

const UNITS = { db: "dB", lufs: "LUFS", hz: "Hz" };

/** A reading's name in words and its value with the unit that its name ends in. */
export function reading(name, value) {
  const words = name.split("_");
  const unit = UNITS[words.at(-1)];
  if (unit) words.pop();
  const shown = unit ? `${value <= -120 ? "−∞" : value.toFixed(1).replace("-", "−")} ${unit}` : String(Number(value.toFixed(2)));
  return [words.join(" "), shown];
}

on("stats", ({ readings }) => {
  if ($("play").hidden) return;
  for (const box of boxes()) {
    const list = box.querySelector(".readings");
    const own = Object.entries(readings).filter(([name]) => name.slice(0, name.lastIndexOf(".")) === box.dataset.label);
    const said = own.map(([name, value]) => reading(name.slice(name.lastIndexOf(".") + 1), value));
    if (list.children.length !== 2 * said.length) {
      list.replaceChildren(...said.flatMap(() => [make("dt"), make("dd")]));
    }
    said.flat().forEach((words, k) => {
      if (list.children[k].textContent !== words) list.children[k].textContent = words;
    });
  }
});

function cardOf(card) {
  const [[name, description], ...facts] = card;
  const rows = facts.flatMap(([what, said], k) => {
    const term = k && facts[k - 1][0] === what ? [] : [make("dt", { textContent: what.replaceAll("_", " ") })];
    return [...term, make("dd", { textContent: said })];
  });
  const inside = make("div", { className: "facts", tabIndex: 0 }, make("p", { textContent: description }), make("dl", {}, ...rows));
  inside.setAttribute("role", "region");
  inside.setAttribute("aria-label", `Card of the model ${name}`);
  return make("details", { className: "card" }, make("summary", { textContent: `Model ${name}` }), inside);
}

// --- moving and removing ---

const boxes = () => [...$("strips").children];
let next = null; // where the keyboard goes once the chain is another one

function tools(box, label, plugin) {
  const button = (className, textContent, words, act) => {
    const made = make("button", { className, textContent, title: words });
    made.setAttribute("aria-label", `${plugin}: ${words.toLowerCase()}`);
    made.onclick = act;
    return made;
  };
  const at = () => boxes().indexOf(box);
  const grip = make("span", { className: "grip", title: "Drag to another place", ariaHidden: "true" });
  const earlier = button("earlier", "‹", "Move earlier", () => change("move", label, Math.max(1, at())));
  const later = button("later", "›", "Move later", () => change("move", label, Math.min(boxes().length, at() + 2)));
  const remove = button("remove", "Remove", "Remove from the chain", () => {
    next = at();
    change("remove", label);
  });
  grip.onpointerdown = (event) => drag(event, grip, box, label);
  return make("div", { className: "tools move" }, grip, earlier, later, remove);
}

function drag(event, grip, box, label) {
  event.preventDefault();
  grip.setPointerCapture(event.pointerId);
  box.classList.add("held");
  const before = boxes();
  let order = before;
  let last = null;
  grip.onpointermove = ({ clientX, clientY }) => {
    const over = document.elementsFromPoint(clientX, clientY).map((e) => e.closest("#strips > *")).find((e) => e && e !== box);
    if (over && over !== last) {
      const to = order.indexOf(over);
      order = order.filter((e) => e !== box);
      order.splice(to, 0, box);
      order.forEach((e, k) => (e.style.order = k));
    }
    last = over;
  };
  const end = (moved) => {
    box.classList.remove("held");
    grip.onpointermove = grip.onpointerup = grip.onpointercancel = null;
    const to = order.indexOf(box);
    if (!moved || to === before.indexOf(box)) return settle();
    change("move", label, to + 1);
    // The host says what the chain is; where it says nothing, everything is where it was.
    setTimeout(settle, 5000);
  };
  grip.onpointerup = () => end(true);
  grip.onpointercancel = () => end(false);
}

const settle = () => boxes().forEach((box) => (box.style.order = ""));
on("error", settle);

function rebuilding(on) {
  $("rebuild").setAttribute("aria-pressed", on);
  $("strips").classList.toggle("editing", on);
  $("add").hidden = !on;
}

$("rebuild").onclick = () => rebuilding($("rebuild").getAttribute("aria-pressed") !== "true");
on("lock", ({ on: locked }) => locked && rebuilding(false));

// --- adding ---

$("add").onclick = () => {
  if (!state.plugins.length) ask("browse");
  const places = [["0", "at the end"], ...state.chain.strips.map((s, k) => [String(k + 1), `before ${s.plugin}`])];
  $("place").replaceChildren(...places.map(([value, textContent]) => make("option", { value, textContent })));
  $("plugins").showModal();
};

on("plugins", (plugins) => {
  const rows = plugins.map((plugin) => {
    const button = make("button", {}, make("b", { textContent: plugin.name }), make("span", { className: "small", textContent: plugin.description }));
    button.onclick = () => {
      change("add", plugin.id, Number($("place").value));
      $("plugins").close();
    };
    return make("li", {}, button);
  });
  $("known").replaceChildren(...(rows.length ? rows : [make("li", { className: "small", textContent: "Looking …" })]));
});
$("enough").onclick = () => $("plugins").close();

// --- what plays ---

let built = new Map();

on("chain", (chain) => {
  // What is the same stays, and with it the place of whoever works with the keyboard.
  const keys = chain.strips.map((s) => JSON.stringify(s));
  if (keys.length === built.size && [...built.keys()].every((key, k) => key === keys[k])) return;
  const focused = document.activeElement;
  built = new Map(keys.map((key, k) => [key, built.get(key) ?? strip(chain.strips[k])]));
  $("strips").replaceChildren(...built.values());
  settle();
  if (next !== null) (boxes()[Math.min(next, boxes().length - 1)]?.querySelector(".remove") ?? $("add")).focus();
  else if (focused !== document.activeElement && $("strips").contains(focused)) focused.focus();
  next = null;
  $("empty").hidden = keys.length > 0;
});
