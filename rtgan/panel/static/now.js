// The view that is looked at for hours: meters, spectrograms, how it is going.

import { make } from "./control.js";
import { BANDS, Spectrogram } from "./scope.js";
import { ask, on, state } from "./state.js";

const COLUMNS = 2;
const LOWEST_HZ = 40;
const FLOOR_DB = -60;
const TICKS_DB = [0, -6, -12, -24, -36, -48];
const HOLD_MS = 1500;
const FALL_DB_S = 24;
const $ = (id) => document.getElementById(id);

// --- meters ---

const height = (db) => Math.min(1, Math.max(0, 1 - db / FLOOR_DB));
let sides = [];

function meter(title, channels) {
  const clip = make("button", { className: "clip", textContent: "clip", type: "button" });
  clip.setAttribute("aria-label", `${title} clip: reset`);
  const number = make("p", { className: "big" });
  const bars = Array.from({ length: channels }, (_, c) => {
    const [peak, level, hold] = ["peak", "level", "hold"].map((className) => make("i", { className }));
    const bar = make("div", { className: "bar" }, peak, level, hold);
    bar.setAttribute("role", "meter");
    bar.setAttribute("aria-label", channels > 1 ? `${title} ${c + 1}` : title);
    bar.setAttribute("aria-valuemin", FLOOR_DB);
    bar.setAttribute("aria-valuemax", 0);
    bar.setAttribute("aria-valuenow", FLOOR_DB);
    return { bar, peak, level, hold, top: -120, since: 0 };
  });
  const scale = make("div", { className: "scale", ariaHidden: "true" });
  for (const db of TICKS_DB) {
    const tick = make("span", { textContent: db });
    tick.style.top = `${100 * (1 - height(db))}%`;
    scale.append(tick);
  }
  const side = { title, clip, number, bars, clipped: false, highest: -120, shown: 0, heard: 0 };
  clip.onclick = () => (side.clipped = false);
  const box = make("div", { className: "meter" }, make("h2", { textContent: title }), clip, make("div", { className: "bars" }, ...bars.map((b) => b.bar), scale), number);
  $("meters").append(box);
  return side;
}

function showMeters(levels, now) {
  let k = 0;
  for (const side of sides) {
    let loudest = -120;
    for (const channel of side.bars) {
      const [peak, rms] = [levels[k++], levels[k++]];
      if (peak >= channel.top) [channel.top, channel.since] = [peak, now];
      else if (now - channel.since > HOLD_MS) channel.top = Math.max(peak, channel.top - FALL_DB_S / 30);
      channel.peak.style.clipPath = `inset(${100 * (1 - height(peak))}% 0 0 0)`;
      channel.level.style.clipPath = `inset(${100 * (1 - height(rms))}% 0 0 0)`;
      channel.hold.style.transform = `translateY(${100 * (1 - height(channel.top))}%)`;
      loudest = Math.max(loudest, channel.top);
      if (peak > -70) side.heard = now;
      if (peak > -0.01) side.clipped = true;
    }
    side.clip.classList.toggle("on", side.clipped);
    if (now - side.shown > 200) {
      side.shown = now;
      side.number.textContent = loudest > -99 ? loudest.toFixed(1) : "−∞";
      for (const channel of side.bars) channel.bar.setAttribute("aria-valuenow", Math.round(Math.max(FLOOR_DB, channel.top)));
    }
  }
  const input = sides[0];
  if (!state.stats?.away) sayInput(input.clipped ? "clipping" : now - input.heard > 2000 ? "silent" : "present");
}

function sayInput(word) {
  if ($("input-state").textContent === word) return;
  $("input-state").textContent = word;
  $("input-state").className = `big ${word.replace(" ", "-")}`;
}

// --- spectrograms ---

const pictures = [new Spectrogram($("before")), new Spectrogram($("after"))];
export const recolour = () => pictures.forEach((p) => p.recolour());

function axis() {
  const highest = Math.min(20000, 0.49 * state.about.rate_hz);
  for (const picture of pictures) {
    const box = picture.canvas.parentElement;
    box.querySelectorAll("span").forEach((old) => old.remove());
    for (const [hz, name] of [[100, "100"], [1000, "1 k"], [10000, "10 k"]]) {
      const tick = make("span", { textContent: name, ariaHidden: "true" });
      tick.style.bottom = `${(100 * Math.log(hz / LOWEST_HZ)) / Math.log(highest / LOWEST_HZ)}%`;
      box.append(tick);
    }
  }
}

let newest = null;

on("frame", (data) => {
  const count = 4 * state.about.channels;
  if (data.byteLength !== 4 * count + 2 * COLUMNS * BANDS || !sides.length) return;
  const spectra = new Uint8Array(data, 4 * count);
  pictures[0].add(spectra.subarray(0, COLUMNS * BANDS));
  pictures[1].add(spectra.subarray(COLUMNS * BANDS));
  if (newest === null) requestAnimationFrame(paint);
  newest = new Float32Array(data, 0, count);
});

function paint(now) {
  const levels = newest;
  newest = null;
  showMeters(levels, now);
  if (!$("now").hidden) pictures.forEach((p) => p.draw());
}

// --- figures ---

on("about", (about) => {
  $("meters").replaceChildren();
  sides = [meter("In", about.channels), meter("Out", about.channels)];
  const ends = about.input === about.output ? about.input : `${about.input} → ${about.output}`;
  $("devices").textContent = `${ends}, ${about.rate_hz / 1000} kHz`;
  axis();
});

const percent = (x) => `${x < 0.0995 ? (100 * x).toFixed(1) : Math.round(100 * x)} %`;

function ago(seconds) {
  if (seconds < 2) return "just now";
  if (seconds < 120) return `${Math.round(seconds)} s ago`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3600)} h ago`;
}

on("stats", (stats) => {
  if (stats.away) sayInput(stats.away);
  $("load").textContent = percent(stats.load);
  $("worst").textContent = `worst ${percent(stats.worst_load)}`;
  $("xruns").textContent = stats.xruns;
  $("xruns").classList.toggle("warn", stats.xruns > 0);
  $("xrun-last").textContent = stats.xruns > 0 && stats.xrun_at ? `last ${ago(Date.now() / 1000 - stats.xrun_at)}` : "none lost";
  const parts = Object.entries(stats.latency_ms);
  $("latency").textContent = `${parts.reduce((sum, [, ms]) => sum + (ms ?? 0), 0).toFixed(1)} ms`;
  const told = parts.filter(([, ms]) => ms !== null).map(([part, ms]) => `${part} ${ms.toFixed(1)}`);
  if (told.length < parts.length) told.push("the device's own is not known");
  $("latency-parts").textContent = told.join(" · ");
  const voice = Object.entries(stats.readings).find(([name]) => name.endsWith(".voice"));
  $("voice-tile").hidden = !voice;
  if (voice) {
    $("voice").classList.toggle("on", voice[1] > 0.5);
    $("voice-text").textContent = voice[1] > 0.5 ? "speaking" : "quiet";
  }
  const held = Object.entries(stats.readings).filter(([name]) => name.endsWith(".gain_reduction_db")).map(([name, db]) => [name.split(".")[0], Math.abs(db)]);
  $("reduction-tile").hidden = !held.length;
  if (held.length) {
    const sum = held.reduce((whole, [, db]) => whole + db, 0);
    $("reduction").textContent = `${sum.toFixed(1)} dB`;
    $("reduction-bar").style.transform = `scaleX(${Math.min(1, sum / 24)})`;
    $("reduction-parts").textContent = held.map(([label, db]) => `${label} ${db.toFixed(1)}`).join(" · ");
  }
  const faults = Object.entries(stats.faults).filter(([, n]) => n > 0).map(([plugin, n]) => `${plugin} has failed ${n} times`);
  const lines = [...faults, ...stats.trouble];
  if (stats.bad_input) lines.push(`${stats.bad_input} input samples were no sound`);
  if (lines.join("\n") !== $("trouble").dataset.text) {
    $("trouble").dataset.text = lines.join("\n");
    $("trouble").replaceChildren(...lines.map((textContent) => make("li", { textContent })));
  }
});

$("reset").onclick = () => {
  for (const side of sides) side.clipped = false;
  ask("reset");
};
