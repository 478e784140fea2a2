// Listens to /v1/actors and shows what comes.

const SILENCE_MS = 15_000;
const LONGEST_WAIT_S = 10;
const KEY = "troupe-key";

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// --- the connection ---

let key = sessionStorage.getItem(KEY) ?? "";
let before = null; // The snapshot before, while it is of the same life of the server.
let listening = new AbortController();

/** Headers carry bytes, and the key is UTF-8 there. */
function headers() {
  return key ? { Authorization: `Bearer ${String.fromCharCode(...new TextEncoder().encode(key))}` } : {};
}

function say(text, { stale = false } = {}) {
  setText(byId("connection"), text);
  document.body.classList.toggle("stale", stale);
}

async function watch() {
  for (let wait = 1; ; wait = Math.min(2 * wait, LONGEST_WAIT_S)) {
    if (document.hidden) await shownAgain();
    let problem = "the server ended the stream";
    try {
      const reply = await listen();
      if (reply.ok) {
        wait = 1;
        for await (const house of snapshots(reply.body)) take(house);
      } else if (reply.status === 401) {
        await reply.body?.cancel();
        await keyGiven();
        wait = 0.5;
        continue;
      } else {
        wait = Math.max(wait, Number(reply.headers.get("Retry-After")) || 0);
        problem = `the server answers ${reply.status}`;
      }
    } catch (error) {
      problem = error.name === "AbortError" ? "nothing is heard of the server" : "the server cannot be reached";
      if (document.hidden) problem = "nobody looked at this page";
    } finally {
      listening.abort();
    }
    say(`Not connected: ${problem}. What is shown is old; trying again …`, { stale: true });
    await pause(wait * 1000);
  }
}

function listen() {
  listening = new AbortController();
  const options = { headers: headers(), signal: listening.signal, cache: "no-store" };
  return fetch(`v1/actors?stream=true&interval=${INTERVAL_S}`, options);
}

/** The data of server-sent events, as they come; silence ends it. */
async function* snapshots(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ""; ; ) {
    const silence = setTimeout(() => listening.abort(), SILENCE_MS);
    const { value, done } = await reader.read().finally(() => clearTimeout(silence));
    if (done) return;
    const events = (text + value).split("\n\n");
    text = events.pop();
    for (const event of events) {
      if (event.startsWith("data: ")) yield JSON.parse(event.slice("data: ".length));
    }
  }
}

/** A page that nobody sees asks for nothing. */
function shownAgain() {
  return new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) listening.abort();
});

function keyGiven() {
  say(key ? "That key is wrong." : "A key is wanted.");
  key = "";
  sessionStorage.removeItem(KEY);
  byId("ask").hidden = false;
  byId("key").focus();
  return new Promise((resolve) => {
    byId("ask").addEventListener("submit", resolve, { once: true });
  });
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  key = byId("key").value.trim();
  sessionStorage.setItem(KEY, key);
  byId("key").value = "";
  byId("ask").hidden = true;
});

// --- what is shown ---

function take(house) {
  const startedAt = (each) => each.at - each.uptime_s;
  const anew = before !== null && Math.abs(startedAt(house) - startedAt(before)) > 1;
  if (anew) before = null;
  if (anew) say("Connected. The server has been started anew.");
  else if (!byId("connection").textContent.startsWith("Connected")) say("Connected.");
  try {
    show(house);
  } catch (error) {
    say(`This page does not understand what the server says (${error.message}): reload it.`, { stale: true });
  }
  before = house;
}

function show(house) {
  byId("shown").hidden = false;
  document.title = `${state(house)[0]}${DOT}Troupe`;
  fillList(byId("now"), now(house, before));
  for (const [name, value, words] of trends(house, before)) drawTrend(name, value, words);
  setText(byId("requests-note"), requestsNote(house));
  fillTable(byId("requests"), requests(house), addToRequest);
  fillTable(byId("actors"), actors(house, before));
  fillList(byId("engine"), engine(house));
  fillList(byId("memory"), memory(house));
  fillList(byId("cache"), cache(house));
  setText(byId("divergence-note"), ...divergenceNote(house));
  fillTable(byId("divergence"), divergence(house));
  setText(byId("troubles-note"), house.troubles.length ? "" : "None so far.");
  fillTable(byId("troubles"), troubles(house));
}

byId("requests").addEventListener("click", async (event) => {
  const id = event.target.closest("button")?.closest("tr").dataset.key;
  if (!id || !confirm(`End ${id}? Its client gets an error.`)) return;
  let said = `${id} is ended.`;
  try {
    const reply = await fetch(`v1/requests/${encodeURIComponent(id)}`, { method: "DELETE", headers: headers() });
    if (!reply.ok) said = (await reply.json()).error.message;
  } catch {
    said = `${id} was not ended: the server cannot be reached.`;
  }
  setText(byId("ended"), said);
});

watch();
