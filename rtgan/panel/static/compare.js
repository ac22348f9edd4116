// A and B at one loudness, and what can be undone.

import { ask, on, state } from "./state.js";

const $ = (id) => document.getElementById(id);
const SIDES = ["a", "b"];

const decibels = (db) => `${db < 0 ? `−${(-db).toFixed(1)}` : "0"} dB`;

on("compare", ({ side, names, match, trim_db, lufs, known }) => {
  const other = side === "A" ? "B" : "A";
  SIDES.forEach((id, k) => {
    const mine = id === side.toLowerCase();
    $(`side-${id}`).setAttribute("aria-pressed", mine);
    $(`side-${id}`).title = `${names[k] || "as A"}${match ? `, ${decibels(trim_db[k])}` : ""}`;
    $(`holds-${id}`).className = mine ? "sounds" : "";
    $(`holds-${id}`).textContent = `${id.toUpperCase()} ${names[k] || "empty"} · ${decibels(trim_db[k])}`;
    $(`holds-${id}`).title = lufs[k] === null ? "" : `${lufs[k].toFixed(1)} LUFS behind the chain`;
  });
  $("copy").textContent = `Copy ${side} to ${other}`;
  $("match").setAttribute("aria-pressed", match);
  const both = names.every(Boolean);
  $("matched").textContent = !match || !both || known ? "" : "Play each side for a second to match them.";
});

for (const side of SIDES) $(`side-${side}`).onclick = () => ask("compare", { side });
$("copy").onclick = () => ask("copy");
$("match").onclick = () => ask("match", { on: !state.compare?.match });

const GO = { undo: "Undo", redo: "Redo" };

on("history lock", () => {
  for (const [name, word] of Object.entries(GO)) {
    const what = state.history?.[name] ?? "";
    $(name).disabled = !what || state.lock.on;
    $(name).title = what ? `${word}: ${what}` : "";
  }
  $("copy").disabled = state.lock.on;
});

for (const name of Object.keys(GO)) $(name).onclick = () => ask(name);

addEventListener("keydown", (event) => {
  const writing = event.target.matches?.("input:not([type=range]):not([type=checkbox]), select");
  if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z" || writing) return;
  event.preventDefault();
  const name = event.shiftKey ? "redo" : "undo";
  if (!$(name).disabled) ask(name);
});
