// What is played on, the virtual microphone, and what doctor says of the machine.

import { make } from "./control.js";
import { ask, on, state } from "./state.js";

const $ = (id) => document.getElementById(id);
const BLOCKS = [0, 32, 64, 128, 256, 512, 1024, 2048];
const fields = { input: $("end-input"), output: $("end-output"), rate_hz: $("end-rate"), block: $("end-block") };

function fill(select, rows, value) {
  const options = JSON.stringify(rows);
  // What somebody has chosen and not sent yet stays.
  const chosen = select.dataset.chosen ?? String(value);
  if (select.dataset.options !== options) select.replaceChildren(...rows.map(([value, textContent]) => make("option", { value, textContent })));
  select.dataset.options = options;
  select.value = chosen;
  if (select.selectedIndex < 0) select.value = String(value);
}

function show() {
  const now = state.devices;
  if (!now) return;
  const names = (list) => list.map((name) => [name, name]);
  const blocks = BLOCKS.includes(now.block) ? BLOCKS : [...BLOCKS, now.block].sort((a, b) => a - b);
  fill(fields.input, names(now.inputs), now.input);
  fill(fields.output, names(now.outputs), now.output);
  fill(fields.rate_hz, now.rates_hz.map((hz) => [String(hz), `${hz / 1000} kHz`]), now.rate_hz);
  fill(fields.block, blocks.map((n) => [String(n), n ? `${n} (${((1000 * n) / now.rate_hz).toFixed(1)} ms)` : "the device's choice"]), now.block);
  $("fixed").hidden = !now.fixed;
  $("fixed").textContent = now.fixed;
  $("mic-text").textContent = now.microphone ? `Other programs can choose “${now.microphone}”.` : "Other programs do not hear the output.";
  $("mic-switch").checked = Boolean(now.microphone);
  lock();
}

function lock() {
  const now = state.devices;
  if (!now) return;
  const still = state.lock.on || Boolean(now.fixed);
  for (const field of [...Object.values(fields), $("mic-switch")]) field.disabled = still;
  $("end-go").disabled = still || !Object.entries(fields).some(([name, field]) => field.value !== String(now[name]));
}

for (const field of Object.values(fields)) {
  field.onchange = () => {
    field.dataset.chosen = field.value;
    lock();
  };
}

function forget() {
  for (const field of Object.values(fields)) delete field.dataset.chosen;
}

$("ends-form").onsubmit = (event) => {
  event.preventDefault();
  const now = state.devices;
  const changed = (name) => fields[name].value !== String(now[name]);
  ask("devices", {
    ...(changed("input") && { input: fields.input.value }),
    ...(changed("output") && { output: fields.output.value }),
    ...(changed("rate_hz") && { rate_hz: Number(fields.rate_hz.value) }),
    ...(changed("block") && { block: Number(fields.block.value) }),
  });
  forget();
  $("end-go").disabled = true;
};
// The switch shows what is so, not what was asked for.
$("mic-switch").onclick = (event) => {
  event.preventDefault();
  ask("microphone", { on: !state.devices.microphone });
};
$("look").onclick = () => ask("look");
on("devices lock", show);
on("error", show);

// Whoever opens the view wants to see what there is now.
let looked = false;
const visible = () => !$("ends").hidden && !looked && state.devices && ((looked = true), ask("look"));
new MutationObserver(visible).observe($("ends"), { attributeFilter: ["hidden"] });
on("devices", visible);
on("link", (why) => why && (looked = false));

// --- doctor ---

$("examine").onclick = () => {
  ask("examine");
  $("examine").textContent = "Examining …";
};

function examined() {
  $("examine").textContent = "Examine this machine";
}

on("error", examined);
on("doctor", (doctor) => {
  examined();
  $("verdict").textContent = doctor.verdict ?? "";
  const groups = (doctor.groups ?? []).map(({ title, findings }) => {
    const rows = findings.map(({ text, change, prevents }) => {
      const said = make("p", { textContent: text, className: prevents ? "clipping" : change ? "warn" : "" });
      return make("li", {}, said, ...(change ? [make("p", { className: "small", textContent: `Change: ${change}` })] : []));
    });
    return make("section", {}, make("h3", { textContent: title }), make("ul", {}, ...rows));
  });
  $("findings").replaceChildren(...groups);
});
