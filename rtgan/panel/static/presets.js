// The presets' browser: find, load, save, rename, delete.

import { make } from "./control.js";
import { ask, on, state } from "./state.js";

const $ = (id) => document.getElementById(id);

/** The preset whose name is being written, by id. */
let renaming = null;
let shown = "";

function label(p) {
  const number = make("span", { className: "number", textContent: p.program ?? "" });
  if (p.program !== null) number.title = `MIDI program ${p.program}${p.bank ? ` of bank ${p.bank}` : ""}`;
  const whose = p.hides ? ["yours, in front of the factory's"] : p.own ? ["yours"] : [];
  const tags = make("span", { className: "tags" }, ...[...whose, ...p.tags].map((textContent) => make("span", { className: "chip", textContent })));
  const words = make("span", { className: "words" }, make("b", { textContent: p.name }), make("span", { className: "small", textContent: p.broken || p.description }));
  return [number, words, tags];
}

function row(p) {
  const load = make("button", { className: "load", disabled: Boolean(p.broken) }, ...label(p));
  load.dataset.id = p.id;
  if (p.id === state.chain?.id) load.setAttribute("aria-current", "true");
  load.onclick = () => ask("load", { name: p.id });
  if (!p.own) return make("li", {}, load);
  return make("li", {}, ...(renaming === p.id ? [nameForm(p)] : [load, actions(p)]));
}

function actions(p) {
  const disabled = state.lock.on;
  const rename = make("button", { textContent: "Rename", disabled: disabled || Boolean(p.broken), ariaLabel: `Rename ${p.name}` });
  const remove = make("button", { textContent: "Delete", disabled, ariaLabel: `Delete ${p.name}` });
  rename.onclick = () => show(p.id);
  remove.onclick = () => ask("delete", { name: p.id });
  return make("div", { className: "actions edit" }, rename, remove);
}

function nameForm(p) {
  const name = make("input", { value: p.name, maxLength: 100, autocomplete: "off", ariaLabel: `New name of ${p.name}` });
  const cancel = make("button", { type: "button", textContent: "Cancel" });
  const form = make("form", { className: "naming edit" }, name, make("button", { textContent: "Rename" }), cancel);
  form.onsubmit = (event) => {
    event.preventDefault();
    if (name.value.trim()) ask("rename", { name: p.id, new: name.value.trim() });
    show(null);
  };
  cancel.onclick = () => show(null);
  form.onkeydown = ({ key }) => {
    if (key === "Escape") show(null);
  };
  return form;
}

function show(id) {
  const before = renaming;
  renaming = id;
  shown = "";
  list();
  const name = $("list").querySelector(".naming input");
  name?.focus();
  name?.select();
  if (name) return;
  if (before !== null) $("list").querySelector(`[data-id="${CSS.escape(before)}"]`)?.focus();
}

function list() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = state.presets.filter((p) => words.every((w) => `${p.name} ${p.id} ${p.description} ${p.tags.join(" ")}`.toLowerCase().includes(w)));
  const now = JSON.stringify([found, state.chain?.id, state.lock.on, renaming]);
  // What is the same stays, and with it the place of whoever works with the keyboard; and what is being written.
  const writing = shown && renaming !== null && state.presets.some((p) => p.id === renaming);
  if (now !== shown && !writing) $("list").replaceChildren(...found.map(row));
  if (!writing) shown = now;
  $("none").hidden = found.length > 0 || state.presets.length === 0;
}

on("presets chain lock", () => {
  list();
  $("save").disabled = state.lock.on || !state.chain?.own;
  $("save").title = state.chain?.own ? "" : "A factory preset stays as it is; save it under a name of your own, which may be the same: yours stands in front.";
});
$("search").oninput = list;
$("save").onclick = () => ask("save");
$("save-as").onsubmit = (event) => {
  event.preventDefault();
  const name = $("save-name").value.trim();
  if (name) ask("save", { name });
  $("save-name").value = "";
};
$("previous").onclick = () => ask("previous");
$("next").onclick = () => ask("next");
