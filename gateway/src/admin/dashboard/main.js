// Shows what /api/v1/events tells, once a second, and the hour that the gateway keeps.
import { ask } from "./changes.js";
import * as explain from "./explain.js";
import {
  WINDOW, catchUp, clock, groupName, growth, hour, many, millis, past, percent, perSecond, place, quantile, rate, remember, short,
  snapshots, span, sum, trend, whole,
} from "./numbers.js";
import { draw, field, gauge, keyed, light, make, one, pager, set } from "./page.js";

// Entries of one page of each list, as the gateway sends them.
const SIZES = { routes: 25, backends: 24, groups: 15, rejections: 15, tenants: 20 };
const view = { q: "", range: "hour", offsets: { routes: 0, backends: 0, groups: 0, rejections: 0, tenants: 0 } };
let events = null;
let again = null;

connect();
follow();

function connect() {
  clearTimeout(again);
  events?.close();
  const query = new URLSearchParams(view.q ? { q: view.q } : {});
  Object.entries(view.offsets).forEach(([list, offset]) => offset && query.set(list, offset));
  const source = new EventSource(`/api/v1/events?${query}`);
  events = source;
  source.addEventListener("snapshot", (event) => {
    document.body.dataset.link = "live";
    take(JSON.parse(event.data));
  });
  source.addEventListener("error", () => {
    document.body.dataset.link = "lost";
    set(one("phase"), "no connection");
    light(one("phase-light"), "");
    document.title = "no connection · gateway";
    // The browser tries again by itself, unless it was told no.
    if (source.readyState === EventSource.CLOSED) again = setTimeout(connect, 3000);
  });
}

async function follow() {
  await catchUp().catch(() => {});
  if (snapshots.length) showTrends();
  setTimeout(follow, 1000 * past.every);
}

function take(snapshot) {
  remember(snapshot);
  showStatus(snapshot);
  showAlerts(snapshot);
  showRoutes(snapshot);
  showBackends(snapshot);
  showGroups(snapshot);
  showRejections(snapshot);
  showTenants(snapshot);
  showTrends();
}

// ---- What the operator chooses ----------------------------------------------------------------------------------

let typing = null;
one("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(search, 200);
});
one("search").addEventListener("keydown", (event) => {
  if (event.key === "Escape") one("search").value = "";
  if (event.key === "Escape" || event.key === "Enter") search();
});
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input, dialog");
  if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  one("search").focus();
});

function search() {
  clearTimeout(typing);
  const q = one("search").value.trim();
  if (q === view.q) return;
  view.q = q;
  Object.keys(view.offsets).forEach((list) => (view.offsets[list] = 0));
  connect();
}

function pages(list, shown, total) {
  const offset = view.offsets[list];
  pager(list, { shown, total, offset, size: SIZES[list] }, (step) => {
    view.offsets[list] = Math.max(0, view.offsets[list] + step * SIZES[list]);
    connect();
  });
}

for (const button of document.querySelectorAll("[data-range]")) {
  button.addEventListener("click", () => {
    view.range = button.dataset.range;
    for (const other of document.querySelectorAll("[data-range]")) other.setAttribute("aria-pressed", other === button);
    if (snapshots.length) showTrends();
  });
}

one("explain-open").addEventListener("click", () => explain.open());
one("reload-button").addEventListener("click", () => ask({
  title: "Reload the config",
  text: "The gateway reads its config again. If there is a mistake in it, nothing changes and the mistakes are listed here.",
  button: "reload",
  path: "/api/v1/reload",
}));

// ---- Head -------------------------------------------------------------------------------------------------------

function showStatus({ status, routes }) {
  const phases = { serving: "good", noticed: "watch", draining: "watch", cut: "bad" };
  const words = { serving: "serving", noticed: "stopping soon", draining: "stopping", cut: "stopped" };
  const refused = [...new Set(status.overload.flatMap((worker) => worker.refused_tiers))];
  const isOverloaded = status.phase === "serving" && refused.length > 0;
  const { open } = status.breakers;
  const troubles = open ? many(open, "breaker open", "breakers open") : "";
  set(one("phase"), isOverloaded ? `overloaded, refuses ${refused.join(", ")}` : [words[status.phase], troubles].filter(Boolean).join(", "));
  light(one("phase-light"), isOverloaded ? "watch" : open ? "bad" : phases[status.phase]);
  document.title = `${troubles ? `${troubles} · ` : ""}gateway`;
  set(one("version"), status.version);
  const everywhere = (of) => (snapshot) => sum(snapshot.routes.totals[of]);
  const requests = growth(everywhere("requests"), WINDOW).by;
  const failed = growth((snapshot) => snapshot.routes.totals.requests["5xx"] ?? 0, WINDOW).by;
  set(one("rate"), perSecond(rate(everywhere("requests"))));
  set(one("failed"), percent(failed, requests));
  one("failed").classList.toggle("bad", failed > 0.05 * requests);
  set(one("refused"), perSecond(rate(everywhere("rejections"))));
  set(one("incomplete"), percent(growth((snapshot) => snapshot.routes.totals.incomplete, WINDOW).by, requests));
  set(one("in-flight"), whole(status.requests_in_flight));
  set(one("connections"), whole(status.connections.open));
  set(one("uptime"), span(status.uptime_seconds));
  set(one("config-path"), status.config.path);
  set(one("generation"), status.config.generation);
  const reload = status.config.last_reload;
  set(one("reload"), `${reload.successful ? "in force since" : "refused at"} ${clock(reload.at)}`);
  one("reload-error").hidden = reload.successful;
  set(one("reload-error-text"), reload.error ?? "");
  document.body.classList.toggle("fixed", !status.admin.changes);
  set(one("foot"), status.admin.changes ? "" : "Nothing can be changed here: the config names no admin.token_file.");
  one("foot").hidden = status.admin.changes;
}

function showAlerts({ status }) {
  const alerts = [];
  const some = (names) => names.slice(0, 5).join(", ") + (names.length > 5 ? " and others" : "");
  const { open, half_open, open_at } = status.breakers;
  if (open) alerts.push(["bad", `${many(open, "breaker open", "breakers open")}: ${some(open_at)}`]);
  if (half_open) alerts.push(["watch", many(half_open, "breaker half-open", "breakers half-open")]);
  if (status.degraded_backends.length) alerts.push(["bad", `no endpoint is up: ${some(status.degraded_backends)}`]);
  if (status.kept_backends.length) alerts.push(["watch", `endpoints of an earlier answer: ${some(status.kept_backends)}`]);
  const store = status.limits_store;
  if (store && !store.up) alerts.push(["bad", "the store of limits cannot be reached"]);
  for (const { name, stale, keys } of status.issuers) {
    if (!keys.length) alerts.push(["bad", `no keys of the issuer ${name}`]);
    else if (stale) alerts.push(["watch", `keys of the issuer ${name} could not be fetched again`]);
  }
  const external = status.external;
  if (external?.breaker === "open") alerts.push(["bad", `callers cannot be identified: ${external.last_failure?.detail ?? "the external service fails"}`]);
  for (const { name, certificates } of status.listeners) {
    const left = Math.min(...certificates.map(({ expires }) => (new Date(expires) - new Date(status.clock.time)) / 1000));
    if (left < 14 * 86400) alerts.push([left < 86400 ? "bad" : "watch", left > 0 ? `certificate of ${name} expires in ${span(left)}` : `certificate of ${name} has expired`]);
  }
  if (status.config.canary_seconds) alerts.push(["watch", `the new config is on trial for ${span(status.config.canary_seconds)} more`]);
  const list = one("alerts");
  const said = alerts.map(([, text]) => text).join("\n");
  list.hidden = !alerts.length;
  // Said again only when it changes, because it is read aloud.
  if (list.dataset.said === said) return;
  list.dataset.said = said;
  list.replaceChildren(...alerts.map(([mood, text]) => make("li", text, mood)));
}

// ---- Trends -----------------------------------------------------------------------------------------------------

// Trends of the last minute come from the snapshots, those of the last hour from the history.
function lines(total, series, kinds) {
  return kinds.map((kind) => [kind, view.range === "hour" ? hour(series, kind, rate(total(kind))) : trend(total(kind))]);
}

function showTrends() {
  // A gateway that has not run for an hour shows what there is, at least ten minutes wide.
  const known = Math.min(past.most, Math.max(60, past.all?.requests.length ?? 0));
  const points = view.range === "hour" ? known : WINDOW;
  const totals = {
    requests: (snapshot) => sum(snapshot.routes.totals.requests),
    refused: (snapshot) => sum(snapshot.routes.totals.rejections),
    failed: (snapshot) => snapshot.routes.totals.requests["5xx"] ?? 0,
  };
  const top = draw(one("chart"), lines((kind) => totals[kind], past.all, ["requests", "refused", "failed"]), points);
  set(one("chart-span"), view.range === "hour" ? `the last ${Math.round((known * past.every) / 60)} minutes` : "the last minute");
  set(one("chart-top"), `top of the scale ${short(top)}/s`);
  for (const row of one("routes").children) {
    const name = row.dataset.route;
    const found = (snapshot) => (name ? snapshot.routes.named.get(name) : snapshot.routes.unrouted);
    const total = { requests: (route) => sum(route.requests), failed: (route) => route.requests["5xx"] };
    const of = (kind) => (snapshot) => (found(snapshot) ? total[kind](found(snapshot)) : null);
    draw(row.querySelector(".trend"), lines(of, past.routes[name], ["requests", "failed"]), points);
  }
  for (const card of one("backends").children) {
    const name = card.dataset.backend;
    const total = { requests: ({ calls }) => sum(calls), failed: ({ calls }) => sum(calls) - calls.answered - calls.cancelled - calls.refused };
    const of = (kind) => (snapshot) => (snapshot.backends.named.has(name) ? total[kind](snapshot.backends.named.get(name)) : null);
    draw(card.querySelector(".trend"), lines(of, past.backends[name], ["requests", "failed"]), points);
  }
}

// ---- Routes -----------------------------------------------------------------------------------------------------

function showRoutes({ routes }) {
  const unrouted = { name: "", match: null, at: null, ...routes.unrouted };
  const isLast = view.offsets.routes + routes.routes.length >= routes.total;
  const shown = sum(unrouted.requests) > 0 && isLast && !view.q ? [...routes.routes, unrouted] : routes.routes;
  const find = (snapshot, name) => (name ? snapshot.routes.named.get(name) : snapshot.routes.unrouted);
  keyed(one("routes"), "route", shown, (row, route) => {
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
    mix(row, ["2xx", "3xx", "4xx", "5xx"].map((kind) => [kind, growth(of((route) => route.requests[kind]), WINDOW).by]));
    const times = (snapshot) => find(snapshot, route.name)?.duration;
    field(row, "p50", millis(quantile(times, 0.5)));
    field(row, "p99", millis(quantile(times, 0.99)));
    field(row, "refused", reasons(route.rejections, (reason) => of((route) => route.rejections[reason] ?? 0)));
    const incomplete = growth(of((route) => route.incomplete), WINDOW).by;
    field(row, "incomplete", incomplete ? `${percent(incomplete, growth(total, WINDOW).by)} incomplete` : "");
  });
  pages("routes", routes.routes.length, routes.total);
}

function what({ hosts, methods, paths, headers, query }) {
  const parts = [methods.join("|"), hosts.map((host) => `//${host}`).join("|"), paths.join(" | ")];
  const conditions = [...headers, ...query.map((pair) => `?${pair}`)];
  return [...parts, ...conditions].filter(Boolean).join(" ");
}

function mix(row, classes) {
  const total = classes.reduce((total, [, count]) => total + count, 0);
  classes.forEach(([kind, count]) => {
    const bar = row.querySelector(`.mix .c${kind[0]}`);
    bar.style.width = total ? `${(100 * count) / total}%` : "0";
  });
  const said = classes.filter(([, count]) => count > 0).map(([kind, count]) => `${kind} ${whole(count)}`).join(" · ");
  row.querySelector(".mix").setAttribute("aria-label", said || "no answers");
  field(row, "classes", said);
}

function reasons(all, total) {
  const grown = Object.keys(all).map((reason) => [reason, growth(total(reason), WINDOW).by]);
  const worst = grown.filter(([, count]) => count > 0).sort((a, b) => b[1] - a[1]);
  return worst.slice(0, 2).map(([reason, count]) => `${reason} ${whole(count)}`).join(" · ");
}

// ---- Backends ---------------------------------------------------------------------------------------------------

function showBackends({ backends }) {
  keyed(one("backends"), "backend", backends.backends, (card, backend) => {
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
    for (const [name, times] of [["head", "duration"], ["last", "answer_duration"]]) {
      field(card, `${name}-p50`, millis(quantile((snapshot) => found(snapshot)?.[times], 0.5)));
      field(card, `${name}-p99`, millis(quantile((snapshot) => found(snapshot)?.[times], 0.99)));
    }
    showGuards(card, backend);
    const endpoints = backend.endpoints.map((endpoint) => ({ ...endpoint, name: `${endpoint.url} ${endpoint.address}`, backend }));
    keyed(card.querySelector(".endpoints"), "endpoint", endpoints, showEndpoint);
    showForce(card, backend.name, state);
  });
  pages("backends", backends.backends.length, backends.total);
}

function judge({ breaker, bulkhead, endpoints }, state) {
  const isCrowded = bulkhead.waiting > 0 || bulkhead.in_use >= bulkhead.limit;
  const count = (state) => endpoints.filter((endpoint) => endpoint.state === state).length;
  const away = ["down", "ejected", "drained"].map((state) => [state, count(state)]).filter(([, count]) => count > 0);
  if (away.length && (state === "closed" || state === "off")) {
    const said = away.map(([state, count]) => `${whole(count)} ${state}`).join(", ");
    const left = endpoints.length - away.reduce((total, [, count]) => total + count, 0);
    return [left ? "watch" : "bad", `of ${many(endpoints.length, "endpoint", "endpoints")} ${said}`];
  }
  switch (state) {
    case "closed": return isCrowded ? ["watch", "breaker closed, all slots in use"] : ["good", "breaker closed, traffic flows"];
    case "half_open": return ["watch", `breaker half-open, ${breaker.counts.probe_successes} of ${breaker.settings.probes} probes succeeded`];
    case "open": return ["bad", `breaker open, next probe in ${millis(breaker.retry_in_ms)}`];
    case "forced_open": return ["bad", "breaker held open by an operator"];
    case "forced_closed": return ["watch", "breaker held closed by an operator"];
    default: return isCrowded ? ["watch", "no breaker, all slots in use"] : ["good", "no breaker"];
  }
}

function showGuards(card, { bulkhead, breaker, retry }) {
  const gauges = (name) => card.querySelector(`[data-gauge="${name}"]`);
  const waiting = bulkhead.waiting ? `, ${whole(bulkhead.waiting)} waiting` : "";
  const { streams } = bulkhead;
  const streaming = streams.in_use ? `, ${whole(streams.in_use)} of ${whole(streams.limit)} streams` : "";
  const found = bulkhead.adaptive ? `, found between ${whole(bulkhead.adaptive.from)} and ${whole(bulkhead.adaptive.to)}` : "";
  const full = bulkhead.waiting > 0 ? "bad" : bulkhead.in_use > 0.8 * bulkhead.limit ? "watch" : "";
  gauge(gauges("bulkhead"), bulkhead.in_use, bulkhead.limit, `${whole(bulkhead.in_use)} of ${whole(bulkhead.limit)}${found}${waiting}${streaming}`, full);
  const failures = gauges("failures");
  failures.hidden = !breaker;
  if (breaker) {
    const { calls, failures: failed } = breaker.counts;
    const opens = opensAt(breaker);
    const mood = calls && opens !== null && failed / calls > opens / 2 ? "watch" : "";
    gauge(failures, failed, calls || 1, calls ? `${whole(failed)} of ${whole(calls)}` : "no calls", breaker.state === "open" && calls ? "bad" : mood);
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

function showEndpoint(item, { url, address, state, connections, returns_in_ms, down_for_ms, probe_error, backend }) {
  const host = url.replace(/^https?:\/\//, "");
  set(item.querySelector(".url"), host + (address && !url.endsWith(address) ? ` (${address})` : ""));
  const exchanges = backend.protocol === "http1" ? "" : ` · ${connections.exchanges} exchanges on ${backend.protocol}`;
  const busy = `${connections.active} active · ${connections.idle} idle${exchanges}`;
  const said = {
    ejected: `ejected, back in ${millis(returns_in_ms)}`,
    down: `down for ${millis(down_for_ms)}${probe_error ? `: ${probe_error}` : ""}`,
    drained: `drained, ${connections.active} active`,
    warming: `warming up, ${busy}`,
    up: busy,
  };
  set(item.querySelector(".said"), state ? said[state] : "not resolved");
  item.classList.toggle("away", ["ejected", "down", "drained"].includes(state));
  const [button, isDrained] = [item.querySelector(".drain"), state === "drained"];
  button.hidden = !address;
  set(button, isDrained ? "use again" : "drain");
  button.setAttribute("aria-label", `${isDrained ? "use again" : "drain"} ${address} of ${backend.name}`);
  button.onclick = () => ask({
    title: isDrained ? `Use ${address} of ${backend.name} again` : `Drain ${address} of ${backend.name}`,
    text: isDrained ? "The endpoint gets calls again, as far as its health allows." : "The endpoint gets no new calls, also after a reload, until it is used again. Calls under way end normally.",
    button: isDrained ? "use again" : "drain",
    path: `/api/v1/backends/${encodeURIComponent(backend.name)}/endpoints`,
    body: JSON.stringify({ address, state: isDrained ? "auto" : "drained" }),
  });
}

function showForce(card, name, state) {
  const texts = {
    open: ["Open", "Every call of this backend is refused with breaker_open, until the breaker is told to judge again."],
    closed: ["Close", "Calls are sent to this backend however many of them fail, until the breaker is told to judge again."],
    auto: ["Unforce", "The breaker begins to count anew and judges by itself."],
  };
  card.querySelector("[data-acts]").hidden = state === "off";
  for (const button of card.querySelectorAll("[data-force]")) {
    const force = button.dataset.force;
    button.disabled = force === "auto" ? !state.startsWith("forced") : state === `forced_${force}`;
    button.onclick = () => ask({
      title: `${texts[force][0]} the breaker of ${name}`,
      text: texts[force][1],
      button: button.textContent,
      path: `/api/v1/backends/${encodeURIComponent(name)}/breaker`,
      body: JSON.stringify({ state: force }),
    });
  }
}

// ---- Refusals ---------------------------------------------------------------------------------------------------

function decidedBy(element, decided_by) {
  const { setting, at } = decided_by ?? { setting: "", at: null };
  field(element, "setting", setting && !at ? `${setting} (default)` : setting);
  field(element, "at", place(at));
}

function why(element, link) {
  const button = element.querySelector(".why");
  button.hidden = !link;
  button.onclick = () => explain.open(link);
}

function showGroups({ status, refusal_groups: { groups, total, others } }) {
  keyed(one("groups"), "group", groups.map((group) => ({ ...group, name: groupName(group) })), (row, group) => {
    row.classList.add(group.status >= 500 ? "s5" : "s4");
    row.querySelector("a.reason").href = `/docs/refusals.md#:~:text=${encodeURIComponent(group.reason)}`;
    field(row, "status", group.status);
    field(row, "reason", group.reason);
    field(row, "tenant", group.tenant ?? "nobody");
    decidedBy(row, group.decided_by);
    const minute = growth((snapshot) => snapshot.groups.get(group.name) ?? null, WINDOW).by;
    const isNew = new Date(status.clock.time) - new Date(group.since) < 1000 * WINDOW;
    field(row, "minute", whole(isNew ? group.count : minute));
    row.classList.toggle("quiet", !isNew && !minute);
    field(row, "count", whole(group.count));
    row.querySelector('[data-field="count"]').title = `since ${new Date(group.since).toLocaleString("en-GB")}`;
    field(row, "latest", clock(group.latest));
    why(row, group.explain);
  });
  one("groups-table").hidden = !groups.length;
  pages("groups", groups.length, total);
  set(one("groups-none"), view.q ? "No refusal contains the text." : others ? `${whole(others)} others` : "Nothing has been refused.");
}

function showRejections({ rejections, rejections_total }) {
  const named = rejections.map((rejection) => ({ ...rejection, name: `${rejection.time} ${rejection.request_id}` }));
  keyed(one("rejections"), "rejection", named, (item, rejection) => {
    item.dataset.reason = rejection.reason;
    item.dataset.requestId = rejection.request_id;
    item.classList.add(rejection.status >= 500 ? "s5" : "s4");
    field(item, "time", clock(rejection.time));
    field(item, "status", rejection.status);
    field(item, "reason", rejection.reason);
    field(item, "what", `${rejection.method} ${rejection.path}`);
    field(item, "whom", [rejection.tenant ?? "nobody", rejection.route ?? "no route"].join(" · "));
    decidedBy(item, rejection.decided_by);
    field(item, "detail", rejection.detail ?? "");
    field(item, "id", rejection.request_id);
    why(item, rejection.explain);
  });
  one("newest-title").hidden = !rejections_total;
  pages("rejections", rejections.length, rejections_total);
  one("rejections-none").hidden = true;
}

// ---- Tenants ----------------------------------------------------------------------------------------------------

function showTenants({ tenants }) {
  keyed(one("tenants"), "tenant", tenants.tenants, (row, tenant) => {
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
    const exhausted = tenant.limits.filter(({ kind, balance }) => kind === "quota" && balance < 1);
    row.classList.toggle("exhausted", exhausted.length > 0);
    field(row, "badge", exhausted.length ? "quota exhausted" : "");
    const limits = tenant.limits.map((limit) => ({ ...limit, name: limit.route ? `${limit.route}/${limit.name}` : limit.name }));
    keyed(row.querySelector(".buckets"), "bucket", limits, showLimit);
  });
  pages("tenants", tenants.tenants.length, tenants.total);
}

function showLimit(bucket, { name, at, kind, balance, most, per_second, resets_in_seconds }) {
  const label = bucket.querySelector(".name");
  set(label, name);
  label.title = at ? `${name}, ${place(at)}` : `${name}, built in`;
  const isExhausted = kind === "quota" && balance < 1;
  const mood = isExhausted ? "bad" : balance < most / 4 ? "watch" : "";
  const comes = { token_bucket: `, +${short(per_second)}/s`, sliding_window: `, ${short(per_second)}/s`, quota: `, anew in ${span(resets_in_seconds)}`, in_flight: " free" };
  const left = isExhausted ? `${whole(most)} used up` : `${whole(balance)} of ${whole(most)}`;
  gauge(bucket, isExhausted ? most : balance, most, `${left}${comes[kind]}`, mood);
}
