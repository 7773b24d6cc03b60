// Shows what /api/v1/events tells, once a second. Counters come as totals since the start; what they say about now is
// the difference between two snapshots.
//
// Every text is put in as text, never as markup: names of tenants and paths come from strangers.
"use strict";

const WINDOW = 60; // Snapshots that are looked back on, one a second.
const RECENT = 6; // Snapshots over which a rate is taken.

const snapshots = [];
const one = (id) => document.getElementById(id);

connect();

function connect() {
  const events = new EventSource("/api/v1/events");
  events.addEventListener("snapshot", (event) => {
    document.body.dataset.link = "live";
    take(JSON.parse(event.data));
  });
  events.addEventListener("error", () => {
    document.body.dataset.link = "lost";
    set(one("phase"), "no connection");
    light(one("phase-light"), "");
    // The browser tries again by itself, unless it was told no.
    if (events.readyState === EventSource.CLOSED) setTimeout(connect, 3000);
  });
}

function take(snapshot) {
  const last = snapshots.at(-1);
  if (last && last.status.started !== snapshot.status.started) snapshots.length = 0;
  snapshot.taken = performance.now() / 1000;
  for (const list of ["routes", "backends", "tenants"]) {
    snapshot[list].named = new Map(snapshot[list][list].map((entry) => [entry.name, entry]));
  }
  snapshots.push(snapshot);
  if (snapshots.length > WINDOW + 1) snapshots.shift();
  showStatus(snapshot);
  showRoutes(snapshot);
  showBackends(snapshot);
  showTenants(snapshot);
  showRejections(snapshot);
}

// ---- Differences -----------------------------------------------------------------------------------------------

// How much `total` has grown over the last `count` snapshots, and in how many seconds. It is null in a snapshot that
// does not list what is counted: of many entries only the first are listed.
function growth(total, count) {
  const now = snapshots.at(-1);
  const known = snapshots.slice(-1 - count).find((snapshot) => total(snapshot) !== null) ?? now;
  return { by: Math.max(0, (total(now) ?? 0) - (total(known) ?? 0)), seconds: now.taken - known.taken };
}

function rate(total) {
  const { by, seconds } = growth(total, RECENT);
  return seconds > 0 ? by / seconds : null;
}

// The growth from each snapshot to the next, per second.
function trend(total) {
  const rates = [];
  for (let at = 1; at < snapshots.length; at++) {
    const seconds = snapshots[at].taken - snapshots[at - 1].taken;
    const [before, now] = [total(snapshots[at - 1]), total(snapshots[at])];
    rates.push(before === null || now === null ? 0 : Math.max(0, now - before) / Math.max(seconds, 0.001));
  }
  return rates;
}

// Of the times counted within the window; even spread within a bucket. `times` finds the histogram in a snapshot.
function quantile(times, share) {
  const now = times(snapshots.at(-1));
  const before = snapshots.map(times).find((times) => times);
  if (!now) return null;
  const counts = now.at_or_below.map((count, at) => count - (before ? before.at_or_below[at] : 0));
  const rank = share * counts.at(-1);
  if (!(rank > 0)) return null;
  const found = counts.findIndex((count) => count >= rank);
  const low = found > 0 ? now.le_ms[found - 1] : 0;
  const high = now.le_ms[found];
  if (high === null) return low;
  const below = found > 0 ? counts[found - 1] : 0;
  return low + (high - low) * (rank - below) / (counts[found] - below);
}

const sum = (counts) => Object.values(counts).reduce((total, count) => total + count, 0);

// ---- Sections --------------------------------------------------------------------------------------------------

function showStatus({ status }) {
  const phases = { serving: "good", noticed: "watch", draining: "watch", cut: "bad" };
  const words = { serving: "serving", noticed: "stopping soon", draining: "stopping", cut: "stopped" };
  const refused = [...new Set(status.overload.flatMap((worker) => worker.refused_tiers))];
  const overloaded = status.phase === "serving" && refused.length > 0;
  set(one("phase"), overloaded ? `overloaded, refuses ${refused.join(", ")}` : words[status.phase]);
  light(one("phase-light"), overloaded ? "watch" : phases[status.phase]);
  set(one("version"), status.version);
  const everywhere = (of) => (snapshot) => sum(snapshot.routes.totals[of]);
  set(one("rate"), perSecond(rate(everywhere("requests"))));
  set(one("refused"), perSecond(rate(everywhere("rejections"))));
  set(one("in-flight"), whole(status.requests_in_flight));
  set(one("connections"), whole(status.connections.open));
  set(one("uptime"), span(status.uptime_seconds));
  set(one("config-path"), status.config.path);
  set(one("generation"), status.config.generation);
  const reload = status.config.last_reload;
  set(one("reload"), `${reload.successful ? "in force since" : "refused at"} ${clock(reload.at)}`);
  one("reload-error").hidden = reload.successful;
  set(one("reload-error-text"), reload.error ?? "");
}

function showRoutes({ routes }) {
  const unrouted = { name: "", match: null, at: null, ...routes.unrouted };
  const shown = sum(unrouted.requests) > 0 ? [...routes.routes, unrouted] : routes.routes;
  const find = (snapshot, name) => (name ? snapshot.routes.named.get(name) : snapshot.routes.unrouted);
  rows("routes", "route", shown, (row, route) => {
    const of = (pick) => (snapshot) => {
      const found = find(snapshot, route.name);
      return found ? pick(found) : null;
    };
    const total = of((route) => sum(route.requests));
    const now = rate(total);
    field(row, "name", route.name || "no route");
    field(row, "match", route.match ? what(route.match) : "matched nothing");
    field(row, "at", place(route.at));
    field(row, "rate", perSecond(now));
    row.classList.toggle("quiet", !now);
    draw(row.querySelector(".trend"), trend(total));
    mix(row, ["2xx", "3xx", "4xx", "5xx"].map((kind) => [kind, growth(of((route) => route.requests[kind]), WINDOW).by]));
    const times = (snapshot) => find(snapshot, route.name)?.duration;
    field(row, "p50", millis(quantile(times, 0.5)));
    field(row, "p99", millis(quantile(times, 0.99)));
    field(row, "refused", reasons(route.rejections, (reason) => of((route) => route.rejections[reason] ?? 0)));
  });
  more("routes-more", routes.routes.length, routes.total, "routes", "/api/v1/routes?offset=100, or ?q=NAME");
}

function mix(row, classes) {
  const total = classes.reduce((total, [, count]) => total + count, 0);
  classes.forEach(([kind, count]) => {
    const bar = row.querySelector(`.mix .c${kind[0]}`);
    bar.style.width = total ? `${(100 * count) / total}%` : "0";
  });
  const said = classes.filter(([, count]) => count > 0).map(([kind, count]) => `${kind} ${whole(count)}`).join(" · ");
  row.querySelector(".mix").setAttribute("aria-label", said);
  field(row, "classes", said);
}

function reasons(all, total) {
  const grown = Object.keys(all).map((reason) => [reason, growth(total(reason), WINDOW).by]);
  const worst = grown.filter(([, count]) => count > 0).sort((a, b) => b[1] - a[1]);
  return worst.slice(0, 2).map(([reason, count]) => `${reason} ${whole(count)}`).join(" · ");
}

function showBackends({ backends }) {
  rows("backends", "backend", backends.backends, (card, backend) => {
    const state = backend.breaker?.state ?? "off";
    const [mood, verdict] = judge(backend, state);
    card.dataset.state = state;
    card.classList.toggle("bad", mood === "bad");
    light(card.querySelector(".light"), mood);
    field(card, "name", backend.name);
    field(card, "at", place(state === "closed" || state === "off" ? backend.at : backend.breaker_at));
    field(card, "verdict", verdict);
    const found = (snapshot) => snapshot.backends.named.get(backend.name);
    field(card, "rate", perSecond(rate((snapshot) => (found(snapshot) ? sum(found(snapshot).calls) : null))));
    field(card, "p50", millis(quantile((snapshot) => found(snapshot)?.duration, 0.5)));
    field(card, "p99", millis(quantile((snapshot) => found(snapshot)?.duration, 0.99)));
    showGuards(card, backend);
    const endpoints = backend.endpoints.map(({ url, address, connections, returns_in_ms }) => [
      url.replace("http://", "") + (address && !url.endsWith(address) ? ` (${address})` : ""),
      returns_in_ms !== null ? `ejected, back in ${millis(returns_in_ms)}` :
      address ? `${connections.active} active · ${connections.idle} idle${backend.protocol === "http1" ? "" : ` · ${connections.exchanges} exchanges on ${backend.protocol}`}` : "not resolved",
    ]);
    pairs(card.querySelector(".endpoints"), endpoints);
  });
  more("backends-more", backends.backends.length, backends.total, "backends", "/api/v1/backends?offset=100, or ?q=NAME");
}

function judge({ breaker, bulkhead, endpoints }, state) {
  const crowded = bulkhead.waiting > 0 || bulkhead.in_use >= bulkhead.limit;
  const ejected = endpoints.filter(({ returns_in_ms }) => returns_in_ms !== null).length;
  if (ejected && !crowded && (state === "closed" || state === "off")) {
    return ["watch", `${whole(ejected)} of ${whole(endpoints.length)} endpoints ejected`];
  }
  switch (state) {
    case "closed": return crowded ? ["watch", "breaker closed, bulkhead full"] : ["good", "breaker closed, traffic flows"];
    case "half_open": return ["watch", `breaker half-open, ${breaker.counts.probe_successes} of ${breaker.settings.probes} probes succeeded`];
    case "open": return ["bad", `breaker open, next probe in ${millis(breaker.retry_in_ms)}`];
    case "forced_open": return ["bad", "breaker held open by an operator"];
    case "forced_closed": return ["watch", "breaker held closed by an operator"];
    default: return crowded ? ["watch", "no breaker, bulkhead full"] : ["good", "no breaker"];
  }
}

function showGuards(card, { bulkhead, breaker, retry }) {
  const gauges = (name) => card.querySelector(`[data-gauge="${name}"]`);
  const waiting = bulkhead.waiting ? `, ${whole(bulkhead.waiting)} waiting` : "";
  const { streams } = bulkhead;
  const streaming = streams.in_use ? `, ${whole(streams.in_use)} of ${whole(streams.limit)} streams` : "";
  const found = bulkhead.adaptive ? `, adaptive from ${whole(bulkhead.adaptive.from)} to ${whole(bulkhead.adaptive.to)}` : "";
  const full = bulkhead.waiting > 0 ? "bad" : bulkhead.in_use > 0.8 * bulkhead.limit ? "watch" : "";
  gauge(gauges("bulkhead"), bulkhead.in_use, bulkhead.limit, `${whole(bulkhead.in_use)} of ${whole(bulkhead.limit)}${found}${waiting}${streaming}`, full);
  const failures = gauges("failures");
  failures.hidden = !breaker;
  if (breaker) {
    const { calls, failures: failed } = breaker.counts;
    const opens = opensAt(breaker);
    const mood = calls && opens !== null && failed / calls > opens / 2 ? "watch" : "";
    gauge(failures, failed, calls || 1, calls ? `${whole(failed)} of ${whole(calls)}` : "no calls", breaker.state === "open" ? "bad" : mood);
    const mark = failures.querySelector("u");
    mark.hidden = opens === null;
    mark.style.left = `${100 * (opens ?? 0)}%`;
    mark.title = `opens at ${Math.round(100 * (opens ?? 0))} %`;
  }
  const { balance, cap } = retry.budget;
  gauge(gauges("budget"), balance, cap, retry.attempts > 1 ? `${whole(balance)} of ${whole(cap)}` : "no retries", balance < cap / 4 ? "watch" : "");
}

/** The failure ratio that opens it; of an adaptive one, that which holds now. */
function opensAt({ mean_latency_ms, settings: { failure_ratio, adaptive } }) {
  if (!adaptive) return failure_ratio;
  const [whileFilling, whenSlow, always] = adaptive.failure_ratios;
  if (mean_latency_ms === null) return whileFilling;
  return mean_latency_ms > adaptive.threshold_ms ? whenSlow : always;
}

function showTenants({ tenants }) {
  const busy = tenants.tenants;
  rows("tenants", "tenant", busy, (row, tenant) => {
    const of = (pick) => (snapshot) => {
      const found = snapshot.tenants.named.get(tenant.name);
      return found ? pick(found.requests) : null;
    };
    const now = rate(of((requests) => requests.total));
    field(row, "name", tenant.name);
    field(row, "at", place(tenant.at));
    field(row, "tier", tenant.tiers.join(", "));
    field(row, "rate", perSecond(now));
    field(row, "limited", perSecond(rate(of((requests) => requests.limited))));
    row.classList.toggle("quiet", !now);
    const buckets = row.querySelector(".buckets");
    const limits = tenant.limits.map((limit) => ({ ...limit, name: limit.route ? `${limit.route}/${limit.name}` : limit.name }));
    keyed(buckets, "bucket", limits, (bucket, { name, at, kind, balance, most, per_second, resets_in_seconds }) => {
      const label = bucket.querySelector(".name");
      set(label, name);
      label.title = at ? `${name}, ${place(at)}` : `${name}, built in`;
      const mood = balance < 1 ? "bad" : balance < most / 4 ? "watch" : "";
      const comes = { token_bucket: `, +${short(per_second)}/s`, sliding_window: `, ${short(per_second)}/s`, quota: `, anew in ${span(resets_in_seconds)}`, in_flight: " free" };
      gauge(bucket, balance, most, `${whole(balance)} of ${whole(most)}${comes[kind]}`, mood);
    });
  });
  more("tenants-more", busy.length, tenants.total, "tenants", "/api/v1/tenants?offset=20, or ?q=NAME");
}

function showRejections({ rejections, routes }) {
  const named = rejections.map((rejection) => ({ ...rejection, name: `${rejection.time} ${rejection.request_id}` }));
  rows("rejections", "rejection", named, (item, rejection) => {
    item.dataset.reason = rejection.reason;
    item.dataset.requestId = rejection.request_id;
    item.classList.add(rejection.status >= 500 ? "s5" : "s4");
    field(item, "time", clock(rejection.time));
    field(item, "status", rejection.status);
    field(item, "reason", rejection.reason);
    field(item, "what", `${rejection.method} ${rejection.path}`);
    field(item, "whom", [rejection.tenant ?? "nobody", rejection.route ?? "no route"].join(" · "));
    const { setting, at } = rejection.decided_by ?? { setting: "", at: null };
    field(item, "setting", setting && !at ? `${setting} (default)` : setting);
    field(item, "at", place(at));
    field(item, "detail", rejection.detail ?? "");
    field(item, "id", rejection.request_id);
  });
  one("rejections-none").hidden = rejections.length > 0;
  const counted = Object.keys(routes.totals.rejections).map((reason) => {
    const total = (snapshot) => snapshot.routes.totals.rejections[reason] ?? 0;
    return { name: reason, count: growth(total, WINDOW).by };
  });
  const chips = counted.filter(({ count }) => count > 0).sort((a, b) => b.count - a.count);
  one("reasons").replaceChildren(...chips.map(({ name, count }) => {
    const chip = make("span", name);
    chip.append(make("b", whole(count)));
    return chip;
  }));
}

// ---- The page --------------------------------------------------------------------------------------------------

// One element per entry, in order; an element stays the same for as long as its entry's name does.
function rows(id, kind, entries, show) {
  keyed(one(id), kind, entries, show);
}

function keyed(parent, kind, entries, show) {
  const old = new Map([...parent.children].map((child) => [child.dataset[kind], child]));
  entries.forEach((entry, at) => {
    let child = old.get(entry.name);
    old.delete(entry.name);
    if (!child) {
      child = one(`${kind}-template`).content.firstElementChild.cloneNode(true);
      child.dataset[kind] = entry.name;
    }
    if (parent.children[at] !== child) parent.insertBefore(child, parent.children[at] ?? null);
    show(child, entry);
  });
  old.forEach((child) => child.remove());
}

function pairs(list, entries) {
  while (list.children.length > entries.length) list.lastElementChild.remove();
  entries.forEach(([left, right], at) => {
    if (!list.children[at]) {
      const item = make("li", "");
      item.append(make("span", ""), make("span", ""));
      list.append(item);
    }
    set(list.children[at].firstElementChild, left);
    set(list.children[at].lastElementChild, right);
  });
}

function gauge(element, value, most, said, mood) {
  const [bar, fill] = [element.querySelector(".bar"), element.querySelector("i")];
  fill.style.width = `${Math.min(100, (100 * value) / most)}%`;
  fill.className = mood;
  bar.setAttribute("aria-valuemin", 0);
  bar.setAttribute("aria-valuenow", value);
  bar.setAttribute("aria-valuemax", most);
  bar.setAttribute("aria-valuetext", said);
  set(element.querySelector(".value"), said);
}

function draw(svg, rates) {
  const [width, height] = [120, 28];
  const top = Math.max(1, ...rates);
  const step = width / WINDOW;
  const start = width - (rates.length - 1) * step;
  const points = rates.map((value, at) => `${(start + at * step).toFixed(1)} ${(height - 1 - (value / top) * (height - 3)).toFixed(1)}`);
  const line = points.length > 1 ? `M${points.join("L")}` : "";
  svg.querySelector(".line").setAttribute("d", line);
  svg.querySelector(".area").setAttribute("d", line && `${line}L${width} ${height}L${start.toFixed(1)} ${height}Z`);
}

function more(id, shown, total, kind, address) {
  const line = one(id);
  line.hidden = shown >= total;
  set(line, `${whole(total - shown)} more ${kind}: ${address}`);
}

function set(element, text) {
  const said = String(text);
  if (element.textContent !== said) element.textContent = said;
}

function field(parent, name, text) {
  set(parent.querySelector(`[data-field="${name}"]`), text);
}

function make(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}

function light(element, mood) {
  element.className = `light ${mood}`;
}

// ---- Words -----------------------------------------------------------------------------------------------------

const place = (at) => (at ? `${at.file.split("/").at(-1)}:${at.line}` : "");
const whole = (number) => number.toLocaleString("en");
const short = (number) => (number >= 10 ? whole(Math.round(number)) : String(Math.round(number * 10) / 10));
const perSecond = (rate) => (rate === null ? "–" : rate > 0 && rate < 0.05 ? "<0.1" : short(rate));
const clock = (time) => new Date(time).toLocaleTimeString("en-GB");

function what({ hosts, methods, paths, headers, query }) {
  const parts = [methods.join("|"), hosts.map((host) => `//${host}`).join("|"), paths.join(" | ")];
  const conditions = [...headers, ...query.map((pair) => `?${pair}`)];
  return [...parts, ...conditions].filter(Boolean).join(" ");
}

function millis(time) {
  if (time === null || time === undefined) return "–";
  if (time >= 10000) return `${Math.round(time / 1000)} s`;
  if (time >= 1000) return `${(time / 1000).toFixed(1)} s`;
  return time >= 10 ? `${Math.round(time)} ms` : `${time.toFixed(1)} ms`;
}

function span(seconds) {
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min` : `${Math.floor(seconds)} s`;
}
