// Asks the gateway what it would do with a request, and shows each fact with the line that it comes from.
import { place } from "./numbers.js";
import { make, one } from "./page.js";

const [dialog, form, result] = [one("explain"), one("explain-form"), one("explain-result")];

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const asked = [...new FormData(form)].filter(([, value]) => value.trim());
  show(`/api/v1/explain?${new URLSearchParams(asked)}`);
});
one("explain-close").addEventListener("click", () => dialog.close());

export function open(link) {
  if (!dialog.open) dialog.showModal();
  if (!link) return form.elements.url.focus();
  const asked = new URL(link, location.href).searchParams;
  for (const name of ["method", "url", "tenant", "from"]) form.elements[name].value = asked.get(name) ?? "";
  show(link);
}

async function show(link) {
  try {
    const answer = await fetch(link);
    const told = await answer.json();
    result.replaceChildren(...(answer.ok ? explained(told) : [make("p", told.detail ?? told.title, "problem")]));
  } catch {
    result.replaceChildren(make("p", "The gateway does not answer.", "problem"));
  }
}

function explained({ outcome, steps }) {
  const verdict = make("p", outcome.text, `outcome ${outcome.verdict}`);
  if (outcome.at) verdict.append(" ", make("span", place(outcome.at), "place"));
  return [verdict, list(steps)];
}

function list(steps) {
  const all = document.createElement("ul");
  for (const { topic, text, at, is_default, setting, steps: inner } of steps) {
    const item = document.createElement("li");
    item.append(make("b", topic.replaceAll("_", " ")), " ", make("span", text));
    const where = at && !is_default ? place(at) : is_default && setting ? `${setting} (default)` : "";
    if (where) item.append(" ", make("span", where, "place"));
    if (inner?.length) item.append(list(inner));
    all.append(item);
  }
  return all;
}
