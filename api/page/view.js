// What the page shows of a snapshot of the house (actors/snapshots.py: HouseSnapshot): plain texts, no document.

const MOST_REQUESTS = 200;

const SUPERVISORS = {
  request_admitter: null,
  scheduler: "engine_room",
  prefill_worker: "engine_room",
  decode_worker: "engine_room",
  cache_manager: "engine_room",
  memory_monitor: "observers",
  divergence_probe: "observers",
};

/** The room's state, and how it is to look. */
function state(house) {
  if (house.admitter?.draining) return ["draining", "warn"];
  return [house.room, house.room === "ready" ? "good" : "warn"];
}

/** How much a count grew a second since the snapshot before; null where nobody can tell. */
function growth(house, before, read) {
  const [now, then] = [read(house), before && read(before)];
  if (now == null || then == null || now < then || house.at <= before.at) return null;
  return (now - then) / (house.at - before.at);
}

const tokensPerSecond = (house, before) => growth(house, before, (each) => each.decode?.produced_tokens);

function now(house, before) {
  const scheduler = house.scheduler;
  const running = scheduler ? scheduler.prefilling.length + scheduler.decoding.length : 0;
  const inside = house.admitter?.open_requests.length ?? 0;
  return [
    ["State", ...state(house)],
    ["Up", seconds(house.uptime_s)],
    ["Mode", scheduler ? mode(scheduler) : UNKNOWN, scheduler?.serialised ? "warn" : ""],
    ["Waiting", count(inside - running)],
    ["Running", count(running)],
    ["Tokens/s", rate(tokensPerSecond(house, before))],
    ["Answered", count(house.admitter?.requests_closed)],
    ["Refused", count(house.admitter?.rejected)],
  ];
}

const mode = (scheduler) => (scheduler.serialised ? `${scheduler.mode}, serialised` : scheduler.mode);

function trends(house, before) {
  return [
    ["Tokens/s", tokensPerSecond(house, before), rate],
    ["Requests inside", house.admitter?.open_requests.length ?? null, count],
    ["Memory in use", house.monitor?.usage?.active_bytes ?? null, size],
  ];
}

/** One row for each open request, oldest first: { key, cells, done, total }. */
function requests(house) {
  const prefilling = new Map(house.prefill?.sequences.map((each) => [each.request_id, each]));
  const decoding = new Map(house.decode?.sequences.map((each) => [each.request_id, each]));
  const { open_requests: ids = [], arrived_at: arrivedAt = [] } = house.admitter ?? {};
  return ids.slice(0, MOST_REQUESTS).map((id, place) => {
    const age = seconds(arrivedAt[place] == null ? null : house.at - arrivedAt[place]);
    const decode = decoding.get(id);
    const prefill = prefilling.get(id);
    if (decode) return running(decode, "generation", age, decode.generated_tokens, decode.max_tokens);
    if (prefill) return running(prefill, "prefill", age, prefill.done_tokens, prefill.total_tokens);
    return { key: id, cells: [id, "queued", age, "", UNKNOWN, UNKNOWN, UNKNOWN], done: 0, total: 0 };
  });
}

function running(sequence, phase, age, done, total) {
  const hit = sequence.hit_type;
  const cached = hit === "miss" ? hit : `${hit}, ${several(sequence.cached_tokens, "token")}`;
  const speed = phase === "prefill" ? null : sequence.tokens_per_second;
  const progress = `${count(done)} of ${count(total)}`;
  const cells = [sequence.request_id, phase, age, progress, rate(speed), seconds(sequence.ttft_s), cached];
  return { key: sequence.request_id, cells, done, total };
}

function requestsNote(house) {
  const open = house.admitter?.open_requests.length ?? 0;
  if (!open) return "None are open.";
  return open > MOST_REQUESTS ? `The ${MOST_REQUESTS} oldest of ${count(open)}.` : "";
}

/** One row for each actor. */
function actors(house, before) {
  const states = actorStates(house);
  const shown = Object.entries(house.mailboxes).filter(([name]) => name !== "divergence_probe" || house.probe);
  return shown.map(([name, box]) => {
    const life = states[name] !== null ? "alive" : house.room === "loading" ? "starting" : "dead";
    const handled = growth(house, before, (each) => each.mailboxes[name]?.handled);
    const supervisor = SUPERVISORS[name];
    const restarts = supervisor ? count(house.restarts[supervisor] ?? 0) : UNKNOWN;
    const mail = box.capacity == null ? count(box.depth) : `${count(box.depth)} of ${count(box.capacity)}`;
    const tones = life === "dead" ? { 1: "bad" } : {};
    return { key: name, cells: [name, life, mail, rate(handled), restarts, states[name] ?? ""], tones };
  });
}

/** A few words by name; null of one that does not live now. The cache's snapshot outlives its actor. */
function actorStates(house) {
  const { admitter, scheduler, prefill, decode, cache, monitor, probe } = house;
  return {
    request_admitter: admitter && admitterState(admitter),
    scheduler: scheduler && schedulerState(scheduler),
    prefill_worker: prefill && prefillState(prefill),
    decode_worker: decode && decodeState(decode),
    cache_manager: cache && scheduler ? cacheState(cache) : null,
    memory_monitor: monitor && monitor.level,
    divergence_probe: probe && probeState(probe),
  };
}

function admitterState(shown) {
  const open = `${count(shown.open_requests.length)} of ${count(shown.credits)} open`;
  const parts = [open, `${count(shown.rejected)} refused`];
  return (shown.draining ? ["draining", ...parts] : parts).join(DOT);
}

function schedulerState(shown) {
  const line = [
    `${count(shown.waiting.length)} waiting`,
    `${count(shown.prefilling.length)} in prefill`,
    `${count(shown.decoding.length)} generating`,
  ];
  const parts = [mode(shown), line.join(", "), `turns ${shown.turns_under_way.join("+") || "none"}`];
  if (shown.background.length) parts.push(`${count(shown.background.length)} in background`);
  if (shown.preemptions) parts.push(`${count(shown.preemptions)} preempted`);
  return parts.join(DOT);
}

function prefillState(shown) {
  const left = shown.sequences.reduce((sum, each) => sum + each.total_tokens - each.done_tokens, 0);
  return `${several(shown.sequences.length, "prompt")}${DOT}${several(left, "token")} to go`;
}

function decodeState(shown) {
  const unsent = shown.sequences.reduce((sum, each) => sum + each.unsent_tokens, 0);
  const parts = [several(shown.sequences.length, "row"), `${several(shown.produced_tokens, "token")} so far`];
  return (unsent ? [...parts, `${count(unsent)} not yet taken`] : parts).join(DOT);
}

function cacheState(shown) {
  return `${several(shown.entries, "entry", "entries")}${DOT}${several(shown.leases, "lease")}`;
}

function probeState(shown) {
  const parts = [several(shown.rounds, "round")];
  return (shown.under_way ? [...parts, "one under way"] : parts).join(DOT);
}

function engine(house) {
  const { facts, scheduler, engine: vitals } = house;
  const turn = (last) => `${several(last.prefill_tokens, "token")} in ${seconds(last.prefill_s)}`;
  return [
    ["Device", facts ? `${facts.device}, ${facts.dtype}` : UNKNOWN],
    ["Weights", size(facts?.weight_bytes)],
    ["Context", facts ? several(facts.context_tokens, "token") : UNKNOWN],
    ["Last step", seconds(scheduler?.step_s)],
    ["Last prefill", scheduler?.prefill_s == null ? UNKNOWN : turn(scheduler)],
    ["Steps so far", count(house.steps_executed)],
    ["Process", vitals ? String(vitals.pid) : UNKNOWN],
    ["At work on", vitals ? vitals.doing || "nothing" : UNKNOWN],
    ["Silent for", vitals ? seconds(vitals.silent_s) : UNKNOWN],
    ["Commands", vitals ? `${count(vitals.under_way)} under way` : UNKNOWN],
  ];
}

function memory(house) {
  const usage = house.monitor?.usage;
  const level = house.monitor?.level;
  return [
    ["Pressure", level ?? UNKNOWN, level === "limit" ? "bad" : level === "warn" ? "warn" : ""],
    ["Machine", usage ? `${percent(usage.system_used_fraction)} of ${size(usage.system_total_bytes)}` : UNKNOWN],
    ["Engine's process", size(usage?.resident_bytes)],
    ["Arrays", size(usage?.active_bytes)],
    ["Arrays, peak", size(usage?.peak_bytes)],
    ["Kept for reuse", size(usage?.cache_bytes)],
  ];
}

function cache(house) {
  const kept = house.cache;
  if (!kept) return [["Strategy", UNKNOWN]];
  const lookups = Object.values(kept.hits).reduce((sum, each) => sum + each, 0);
  const found = Object.entries(kept.hits).map(([kind, number]) => `${kind} ${count(number)}`);
  return [
    ["Strategy", kept.strategy],
    ["Hit rate", percent(lookups ? 1 - (kept.hits.miss ?? 0) / lookups : null)],
    ["Found", found.join(", ") || UNKNOWN],
    ["Kept", `${size(kept.stored_bytes)} in ${several(kept.entries, "entry", "entries")}`],
    ["Leased", `${size(kept.leased_bytes)} by ${several(kept.leases, "row")}`],
    ["Room", size(kept.budget_bytes)],
    ["On disk", `${size(kept.disk_bytes)} in ${several(kept.disk_entries, "entry", "entries")}`],
    ["Let go", count(kept.evictions)],
  ];
}

/** What the probes found: [note, its tone]. */
function divergenceNote(house) {
  const probe = house.probe;
  if (!probe) return ["Nobody looks: --batch-divergence-monitor is off.", ""];
  const parts = [several(probe.rounds, "round")];
  if (probe.given_up) parts.push(`${count(probe.given_up)} without a result`);
  if (probe.ended_at != null) parts.push(`the last ${seconds(house.at - probe.ended_at)} ago`);
  if (probe.under_way) parts.push("one under way");
  const limit = `${probe.diverged ? "below" : "not below"} the threshold of ${probe.threshold}`;
  return [`${parts.join(DOT)}${probe.rounds ? `${DOT}${limit}` : ""}`, probe.diverged ? "bad" : ""];
}

const COMPARED = { company: "alone, in company", cache: "computed, from the cache", traffic: "as answered, alone" };

function divergence(house) {
  return Object.entries(house.probe?.tallies ?? {}).map(([cause, tally]) => {
    const apart = tally.largest_logprob_difference;
    return {
      key: cause,
      cells: [
        COMPARED[cause] ?? cause,
        tally.agreement.toFixed(4),
        count(tally.prompts),
        count(tally.compared_tokens),
        count(tally.first_difference),
        apart == null ? UNKNOWN : apart.toPrecision(2),
      ],
      tones: tally.agreement < house.probe.threshold ? { 1: "bad" } : {},
    };
  });
}

/** The last warnings and errors, newest first. */
function troubles(house) {
  return [...house.troubles].reverse().map((each, place) => ({
    key: String(place),
    cells: [seconds(house.at - each.at), each.level, each.who, each.text],
    tones: { 1: each.level === "warning" ? "warn" : "bad" },
  }));
}
