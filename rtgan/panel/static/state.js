// What the host tells, as it is now, and the one way to ask it for something.

const KEY = "rtgan-token";
const RETRY_MS = 1000;

export const state = { about: {}, chain: null, values: {}, stats: {}, presets: [], plugins: [], devices: null, midi: null, lock: { on: false }, compare: null, history: null, morph: null };
const listeners = new Map();
let socket = null;

/** Call `act` whenever one of the topics has changed; "frame" brings pictures, "link" whether the host is there. */
export function on(topics, act) {
  for (const topic of topics.split(" ")) {
    if (!listeners.has(topic)) listeners.set(topic, []);
    listeners.get(topic).push(act);
  }
}

function tell(topic, data) {
  for (const act of listeners.get(topic) ?? []) act(data);
}

/** Ask for a command; what speaks against it comes as "error". */
export function ask(command, values = {}) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ do: command, ...values }));
}

// However fast a hand moves, a parameter is sent once per picture. What is set here stands until the hand has rested for
// a moment and the host tells the same: what it tells meanwhile is older. If it never does, it is right.
const REST_MS = 300;
const ECHO_MS = 1500;
const moved = new Map();
const held = new Map();
let told = {};
let settling = null;

export function set(name, value) {
  state.values[name] = value;
  held.set(name, performance.now());
  settling ??= setTimeout(settle, REST_MS);
  if (moved.size === 0) requestAnimationFrame(flush);
  moved.set(name, value);
}

function flush() {
  for (const [name, value] of moved) ask("set", { name, value });
  moved.clear();
}

function settle() {
  const now = performance.now();
  const back = {};
  for (const [name, since] of held) {
    const same = told[name] === state.values[name];
    if (now - since < (same ? REST_MS : ECHO_MS)) continue;
    held.delete(name);
    if (!same) back[name] = told[name];
  }
  settling = held.size ? setTimeout(settle, REST_MS) : null;
  Object.assign(state.values, back);
  if (Object.keys(back).length) tell("values", back);
}

/** What the host tells, but for what is in somebody's hand. */
function others(values) {
  Object.assign(told, values);
  const found = Object.fromEntries(Object.entries(values).filter(([name]) => !held.has(name)));
  Object.assign(state.values, found);
  return found;
}

function token() {
  if (location.hash.length > 1) {
    sessionStorage.setItem(KEY, location.hash.slice(1));
    // Whoever looks at this screen need not see it.
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(KEY) ?? "";
}

function take(topic, data) {
  if (topic === "chain") {
    state.values = Object.fromEntries(Object.entries(state.values).filter(([name]) => held.has(name)));
    told = {};
  }
  if (topic === "values") data = others(data);
  else state[topic] = data;
  tell(topic, data);
}

export function connect() {
  const mine = new WebSocket(`ws://${location.host}/live`, ["rtgan", `token.${token() || "none"}`]);
  socket = mine;
  mine.binaryType = "arraybuffer";
  mine.onopen = () => {
    tell("link", "");
    look();
  };
  mine.onmessage = ({ data }) => {
    if (typeof data !== "string") return tell("frame", data);
    const message = JSON.parse(data);
    if (message.error) tell("error", message.error);
    else take(message.topic, message.data);
  };
  mine.onclose = async () => {
    if (socket !== mine) return;
    const [topic, why] = await reason();
    tell(topic, why);
    // Until a password is given there is nothing to try again.
    if (topic === "link") setTimeout(connect, RETRY_MS);
  };
}

async function reason() {
  try {
    const answer = await fetch("/api/about", { headers: { Authorization: `Bearer ${token() || "none"}` } });
    if (answer.status === 401 && (await answer.json()).password) return ["password", "This panel asks for its password."];
    if (answer.status === 401) return ["link", "This address is of another session. Open the one that rtgan live has printed."];
  } catch {
    // The host has gone, or is on its way.
  }
  return ["link", "The host has gone. Waiting for it to come back …"];
}

/** Come in by the password; what speaks against it, or nothing. */
export async function enter(password) {
  try {
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch("/api/login", { method: "POST", headers, body: JSON.stringify({ password }) });
    const said = await answer.json();
    if (!answer.ok) return said.error;
    sessionStorage.setItem(KEY, said.token);
    connect();
    return "";
  } catch {
    return "The host does not answer.";
  }
}

function look() {
  if (socket?.readyState === WebSocket.OPEN) socket.send(document.hidden ? "rest" : "look");
}

document.addEventListener("visibilitychange", look);
addEventListener("hashchange", () => {
  token();
  const old = socket;
  socket = null;
  old?.close();
  connect();
});
