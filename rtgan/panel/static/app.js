// The frame around the views: tabs, what is always in reach, theme, messages.

import "./chain.js";
import "./compare.js";
import { make } from "./control.js";
import "./devices.js";
import "./keys.js";
import { recolour } from "./now.js";
import "./play.js";
import "./presets.js";
import { ask, connect, enter, on, set, state } from "./state.js";
import "./xy.js";

const $ = (id) => document.getElementById(id);

// --- tabs ---

const tabs = [...document.querySelectorAll("[role=tab]")];

function choose(tab, focus = false) {
  for (const other of tabs) {
    const mine = other === tab;
    other.setAttribute("aria-selected", mine);
    other.tabIndex = mine ? 0 : -1;
    $(other.getAttribute("aria-controls")).hidden = !mine;
  }
  sessionStorage.setItem("rtgan-view", tab.id);
  if (focus) tab.focus();
}

tabs.forEach((tab, k) => {
  tab.onclick = () => choose(tab);
  tab.onkeydown = ({ key }) => {
    const to = { ArrowRight: k + 1, ArrowLeft: k - 1, Home: 0, End: tabs.length - 1 }[key];
    if (to !== undefined) choose(tabs.at(to % tabs.length), true);
  };
});
choose($(sessionStorage.getItem("rtgan-view")) ?? tabs[0]);

// --- theme ---

function paint(theme) {
  document.documentElement.dataset.theme = theme;
  recolour();
}

paint(localStorage.getItem("rtgan-theme") ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark"));
$("theme").onclick = () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("rtgan-theme", theme);
  paint(theme);
};

// --- always in reach ---

$("panic").onclick = () => ask("panic");
for (const name of ["bypass", "mute"]) {
  $(name).onclick = () => set(`host.${name}`, state.values[`host.${name}`] >= 0.5 ? 0 : 1);
}
$("record").onclick = () => ask("record", { on: !state.stats.recording });
$("mark").onclick = () => ask("mark");
$("lock").onclick = () => ask("lock", { on: !state.lock.on });

const two = (n) => String(n).padStart(2, "0");

on("stats", ({ recording, device }) => {
  $("mark").hidden = !recording;
  $("device").hidden = !device;
  if ($("device").textContent !== device) $("device").textContent = device;
  $("record").setAttribute("aria-pressed", Boolean(recording));
  $("record").title = recording?.file ?? "";
  const s = recording?.seconds ?? 0;
  $("record-text").textContent = recording ? `${s >= 3600 ? `${Math.floor(s / 3600)}:` : ""}${two(Math.floor(s / 60) % 60)}:${two(s % 60)}` : "Record";
});

on("lock", ({ on: locked }) => {
  $("lock").setAttribute("aria-pressed", locked);
  lock();
});
on("lock chain midi", lock);

function lock() {
  const edits = document.querySelectorAll("#strips input, #pad-sliders input, #save-as *, .edit *, #learn *, .chip.midi, #pick, #rebuild");
  for (const field of edits) field.disabled = state.lock.on;
}

// --- messages ---

export function say(textContent) {
  const toast = make("p", { textContent });
  $("toasts").append(toast);
  setTimeout(() => toast.remove(), 6000);
}

on("error", say);

let known = null;

on("stats", ({ trouble }) => {
  if (known) trouble.filter((t) => !known.includes(t)).forEach(say);
  known = trouble;
});

on("link", (why) => {
  $("gone").hidden = !why;
  $("gone-text").textContent = why;
  if (!why) $("login").hidden = true;
});

// --- from another machine ---

on("password", (why) => {
  const fresh = $("login").hidden;
  $("gone").hidden = $("login").hidden = false;
  $("gone-text").textContent = why;
  if (fresh) $("password").focus();
});
$("login").onsubmit = async (event) => {
  event.preventDefault();
  $("enter").disabled = true;
  $("gone-text").textContent = "…";
  $("gone-text").textContent = await enter($("password").value);
  $("password").value = "";
  $("enter").disabled = false;
};

connect();
