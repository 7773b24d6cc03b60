// Derives rates, quantiles and trends from snapshots and the history, and puts numbers into words.
//
// Counters come as totals since the start; what they say about now is the difference between two snapshots.

export const WINDOW = 60; // Snapshots that are looked back on, one a second.
const RECENT = 6; // Snapshots over which a rate is taken.

export const snapshots = [];

export function remember(snapshot) {
  const last = snapshots.at(-1);
  if (last && last.status.started !== snapshot.status.started) {
    snapshots.length = 0;
    past.newest = 0;
  }
  snapshot.taken = performance.now() / 1000;
  for (const list of ["routes", "backends", "tenants"]) {
    snapshot[list].named = new Map(snapshot[list][list].map((entry) => [entry.name, entry]));
  }
  snapshot.groups = new Map(snapshot.refusal_groups.groups.map((group) => [groupName(group), group.count]));
  snapshots.push(snapshot);
  if (snapshots.length > WINDOW + 1) snapshots.shift();
}

export const groupName = ({ reason, tenant, decided_by, since }) => JSON.stringify([reason, tenant, decided_by?.setting, decided_by?.at?.line, since]);

// How much `total` has grown over the last `count` snapshots, and in how many seconds. It is null in a snapshot that
// does not list what is counted: of many entries only one page is listed.
export function growth(total, count) {
  const now = snapshots.at(-1);
  const known = snapshots.slice(-1 - count).find((snapshot) => total(snapshot) !== null) ?? now;
  return { by: Math.max(0, (total(now) ?? 0) - (total(known) ?? 0)), seconds: now.taken - known.taken };
}

export function rate(total) {
  const { by, seconds } = growth(total, RECENT);
  return seconds > 0 ? by / seconds : null;
}

// The growth from each snapshot to the next, per second.
export function trend(total) {
  const rates = [];
  for (let at = 1; at < snapshots.length; at++) {
    const seconds = snapshots[at].taken - snapshots[at - 1].taken;
    const [before, now] = [total(snapshots[at - 1]), total(snapshots[at])];
    rates.push(before === null || now === null ? 0 : Math.max(0, now - before) / Math.max(seconds, 0.001));
  }
  return rates;
}

// Of the times counted within the window; even spread within a bucket. `times` finds the histogram in a snapshot.
export function quantile(times, share) {
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

// ---- The hour that the gateway keeps ----------------------------------------------------------------------------

const COUNTS = ["requests", "failed", "refused", "incomplete"];
export const past = { newest: 0, every: 10, most: 360, all: null, routes: {}, backends: {}, tenants: {} };

// Asks for the points since the last ones, and adds them.
export async function catchUp() {
  const answer = await fetch(`/api/v1/history?after=${past.newest}`);
  if (!answer.ok) return;
  const told = await answer.json();
  const isAnew = past.newest === 0 || told.newest < past.newest;
  past.all = added(isAnew ? null : past.all, told.all, told.most_points);
  for (const list of ["routes", "backends", "tenants"]) {
    const grown = Object.entries(told[list]).map(([name, series]) => [name, added(isAnew ? null : past[list][name], series, told.most_points)]);
    past[list] = Object.fromEntries(grown);
  }
  [past.newest, past.every, past.most] = [told.newest, told.every_seconds, told.most_points];
}

function added(old, series, most) {
  const sum = {};
  for (const count of COUNTS) {
    const fresh = series[count].length ? series[count] : new Array(series.points).fill(0);
    sum[count] = [...(old?.[count] ?? []), ...fresh].slice(-most);
  }
  return sum;
}

// Rates of the kept points, and of the time since the newest one as the last.
export const hour = (series, count, now) => [...(series?.[count] ?? []).map((point) => point / past.every), now ?? 0];

// ---- Words ------------------------------------------------------------------------------------------------------

export const sum = (counts) => Object.values(counts).reduce((total, count) => total + count, 0);
export const place = (at) => (at ? `${at.file.split("/").at(-1)}:${at.line}` : "");
export const whole = (number) => number.toLocaleString("en");
export const short = (number) => (number >= 10 ? whole(Math.round(number)) : String(Math.round(number * 10) / 10));
export const perSecond = (rate) => (rate === null ? "–" : rate > 0 && rate < 0.05 ? "<0.1" : short(rate));
export const clock = (time) => new Date(time).toLocaleTimeString("en-GB");
export const many = (count, one, more) => `${whole(count)} ${count === 1 ? one : more}`;

export function percent(part, of) {
  if (!of) return "–";
  const share = (100 * part) / of;
  return share === 0 ? "0 %" : share < 0.1 ? "<0.1 %" : `${share >= 10 ? Math.round(share) : Math.round(share * 10) / 10} %`;
}

export function millis(time) {
  if (time === null || time === undefined) return "–";
  if (time >= 10000) return `${Math.round(time / 1000)} s`;
  if (time >= 1000) return `${(time / 1000).toFixed(1)} s`;
  return time >= 10 ? `${Math.round(time)} ms` : `${time.toFixed(1)} ms`;
}

export function span(seconds) {
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min` : `${Math.floor(seconds)} s`;
}
