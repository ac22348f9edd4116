// A keyboard on the screen, where the chain plays notes: for mouse, touch and the computer's keys.

import { make } from "./control.js";
import { ask, on, state } from "./state.js";

const $ = (id) => document.getElementById(id);
const NAMES = ["C", "C♯", "D", "D♯", "E", "F", "F♯", "G", "G♯", "A", "A♯", "B"];
const BLACK = [1, 3, 6, 8, 10];
const COMPUTER = "awsedftgyhujkolp;"; // a row of keys as on a piano, from C
const narrow = matchMedia("(max-width: 46rem)");
let count = 25;
let lowest = 48;
const held = new Map(); // who holds it (a pointer, a key): which note

const name = (note) => `${NAMES[note % 12]}${Math.floor(note / 12) - 1}`;
const keyOf = (note) => $("piano").children[note - lowest];

function press(who, note, velocity) {
  if (held.get(who) === note) return;
  release(who);
  if (note === undefined) return;
  const sounds = [...held.values()].includes(note);
  held.set(who, note);
  if (!sounds) ask("note", { number: note, velocity: Math.min(127, Math.max(1, Math.round(velocity))) });
  keyOf(note)?.classList.add("down");
}

function release(who) {
  const note = held.get(who);
  if (!held.delete(who) || [...held.values()].includes(note)) return;
  ask("note", { number: note, velocity: 0 });
  keyOf(note)?.classList.remove("down");
}

const releaseAll = () => [...held.keys()].forEach(release);
const velocity = () => Number($("velocity").value);

function build() {
  releaseAll();
  count = narrow.matches ? 13 : 25;
  const keys = Array.from({ length: count }, (_, k) => {
    const note = lowest + k;
    const black = BLACK.includes(note % 12);
    const key = make("button", { type: "button", className: black ? "black" : "white", tabIndex: k ? -1 : 0 });
    key.setAttribute("aria-label", name(note));
    if (note % 12 === 0) key.append(make("span", { textContent: name(note), ariaHidden: "true" }));
    key.dataset.note = note;
    key.style.gridColumn = `${column(note)} / span ${black ? 2 : 3}`;
    return key;
  });
  $("piano").replaceChildren(...keys);
  $("piano").style.gridTemplateColumns = `repeat(${3 * whites(lowest + count)}, 1fr)`;
  $("range").textContent = `${name(lowest)} to ${name(lowest + count - 1)}`;
  $("lower").disabled = lowest <= 0;
  $("higher").disabled = lowest + count > 115;
}

/** White keys below a note. */
const whites = (note) => Array.from({ length: note - lowest }, (_, k) => (lowest + k) % 12).filter((n) => !BLACK.includes(n)).length;

/** Where a key begins: a white one is three columns wide, a black one lies over the border of two. */
const column = (note) => 3 * whites(note) + (BLACK.includes(note % 12) ? 0 : 1);

function under(event) {
  const key = document.elementFromPoint(event.clientX, event.clientY)?.closest("#piano button");
  if (!key) return [];
  const box = key.getBoundingClientRect();
  // Further to the front is louder, as on a real key.
  const force = 0.4 + 0.6 * Math.min(1, (event.clientY - box.top) / box.height);
  return [Number(key.dataset.note), force * velocity()];
}

$("piano").onpointerdown = (event) => {
  event.target.releasePointerCapture(event.pointerId);
  press(event.pointerId, ...under(event));
};
addEventListener("pointermove", (event) => held.has(event.pointerId) && press(event.pointerId, ...under(event)));
for (const end of ["pointerup", "pointercancel"]) addEventListener(end, (event) => release(event.pointerId));
for (const end of ["blur", "pagehide"]) addEventListener(end, releaseAll);
document.addEventListener("visibilitychange", releaseAll);

$("piano").onkeydown = (event) => {
  const keys = [...$("piano").children];
  const at = keys.indexOf(document.activeElement);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: keys.length - 1 }[event.key];
  if (keys[to]) {
    keys[at].tabIndex = -1;
    keys[to].tabIndex = 0;
    keys[to].focus();
  } else if (event.key !== " " && event.key !== "Enter") return;
  else if (!event.repeat) press("key", lowest + at, velocity());
  event.preventDefault();
};
$("piano").onkeyup = (event) => [" ", "Enter"].includes(event.key) && release("key");
$("piano").addEventListener("focusout", () => release("key"));

// --- the computer's keys: within the keyboard, or everywhere if somebody says so ---

function typed(event) {
  if ($("keyboard").hidden || event.ctrlKey || event.altKey || event.metaKey) return undefined;
  if (event.target.closest("input:not([type=range], [type=checkbox]), select, textarea, dialog")) return undefined;
  if (!$("keyboard").contains(event.target) && $("computer").getAttribute("aria-pressed") !== "true") return undefined;
  const at = COMPUTER.indexOf(event.key.toLowerCase());
  return at < 0 ? undefined : lowest + at;
}

addEventListener("keydown", (event) => {
  const note = typed(event);
  if (note === undefined) return;
  event.preventDefault();
  if (!event.repeat) press(event.code, note, velocity());
});
addEventListener("keyup", (event) => release(event.code));

$("computer").onclick = () => $("computer").setAttribute("aria-pressed", $("computer").getAttribute("aria-pressed") !== "true");
const shift = (by) => {
  lowest = Math.min(96, Math.max(0, lowest + by));
  build();
};
$("velocity").oninput = () => $("velocity").style.setProperty("--at", (velocity() - 1) / 126);
$("velocity").oninput();
$("lower").onclick = () => shift(-12);
$("higher").onclick = () => shift(12);

on("chain", ({ notes_in: takes }) => {
  if (!takes) releaseAll();
  $("keyboard").hidden = !takes;
});
build();
narrow.onchange = build;
