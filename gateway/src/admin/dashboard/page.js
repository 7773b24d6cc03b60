// Puts values into the page. Every text is put in as text, never as markup: names of tenants and paths come from
// strangers.

export const one = (id) => document.getElementById(id);

// One element per entry, in order; an element stays the same for as long as its entry's name does, and keeps the focus
// where it moves.
export function keyed(parent, kind, entries, show) {
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
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
  if (focused && focused.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
}

export function gauge(element, value, most, said, mood) {
  const [bar, fill] = [element.querySelector(".bar"), element.querySelector("i")];
  fill.style.width = `${Math.min(100, (100 * value) / most)}%`;
  fill.className = mood;
  bar.setAttribute("aria-valuemin", 0);
  bar.setAttribute("aria-valuenow", value);
  bar.setAttribute("aria-valuemax", most);
  bar.setAttribute("aria-valuetext", said);
  bar.setAttribute("aria-label", element.querySelector(".name").textContent);
  set(element.querySelector(".value"), said);
  element.querySelector(".value").classList.toggle("bad", mood === "bad");
}

// Draws each list of rates to the path of this class, on one scale; returns the top of the scale.
export function draw(svg, lines, points) {
  const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
  const top = Math.max(1, ...lines.flatMap(([, rates]) => rates));
  const step = width / points;
  for (const [kind, rates] of lines) {
    const start = width - (rates.length - 1) * step;
    const spots = rates.map((value, at) => `${(start + at * step).toFixed(1)} ${(height - 1 - (value / top) * (height - 3)).toFixed(1)}`);
    const isFlat = kind !== "requests" && rates.every((rate) => rate === 0);
    const line = spots.length > 1 && !isFlat ? `M${spots.join("L")}` : "";
    svg.querySelector(kind === "requests" ? ".line" : `.line.${kind}`).setAttribute("d", line);
    if (kind === "requests") svg.querySelector(".area").setAttribute("d", line && `${line}L${width} ${height}L${start.toFixed(1)} ${height}Z`);
  }
  return top;
}

export function set(element, text) {
  const said = String(text);
  if (element.textContent !== said) element.textContent = said;
}

export function field(parent, name, text) {
  set(parent.querySelector(`[data-field="${name}"]`), text);
}

export function make(tag, text, kind = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

export function light(element, mood) {
  element.className = `light ${mood}`;
}

// Shows which entries of a list are listed, and steps through its pages.
export function pager(id, { shown, total, offset, size }, turn) {
  const nav = one(`${id}-pager`);
  one(`${id}-none`).hidden = total > 0;
  nav.hidden = total <= size && offset === 0;
  if (nav.hidden) return;
  if (!nav.firstElementChild) {
    const [back, said, on] = [make("button", "← before"), make("span", ""), make("button", "next →")];
    back.type = on.type = "button";
    back.addEventListener("click", () => turn(-1));
    on.addEventListener("click", () => turn(1));
    nav.append(back, said, on);
  }
  const [back, said, on] = nav.children;
  set(said, shown ? `${(offset + 1).toLocaleString("en")} to ${(offset + shown).toLocaleString("en")} of ${total.toLocaleString("en")}` : `none of ${total.toLocaleString("en")} here`);
  back.disabled = offset === 0;
  on.disabled = offset + shown >= total;
}
