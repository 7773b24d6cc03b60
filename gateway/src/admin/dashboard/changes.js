// Changes the gateway at the operator's word: asks first, sends the admin token with the change, and shows what came
// back.
//
// The token is kept in a variable of this page and nowhere else: no storage, no cookie, no address.
import { one, set } from "./page.js";

let token = null;
let wanted = null;

const [dialog, problem, input] = [one("change"), one("change-problem"), one("change-token")];

one("change-form").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
one("change-cancel").addEventListener("click", () => dialog.close());
one("change-forget").addEventListener("click", () => {
  token = null;
  showToken();
});
dialog.addEventListener("close", () => {
  input.value = "";
  wanted = null;
});

// Opens the dialog of a change. `then` is called with the answer of a change that was made.
export function ask({ title, text, button, path, body, then }) {
  wanted = { path, body, then };
  set(one("change-title"), title);
  set(one("change-text"), text);
  set(one("change-do"), button);
  problem.hidden = true;
  showToken();
  dialog.showModal();
  (token === null ? input : one("change-do")).focus();
}

function showToken() {
  one("change-token-field").hidden = token !== null;
  one("change-forget").hidden = token === null;
}

async function send() {
  const { path, body, then } = wanted;
  const used = token ?? input.value.trim();
  if (!used) return fail("A change needs the admin token.");
  one("change-do").disabled = true;
  try {
    const answer = await fetch(path, { method: "POST", headers: { authorization: `Bearer ${used}` }, body, credentials: "omit", cache: "no-store" });
    const told = await answer.json().catch(() => ({}));
    if (answer.status === 401) {
      token = null;
      showToken();
      fail(`${told.title ?? "Not accepted"}. It is the content of admin.token_file when the gateway started.`);
      input.select();
    } else if (!answer.ok) {
      // The gateway has accepted the token, or it cannot be used at all.
      token = answer.status === 403 ? null : used;
      showToken();
      fail(told.detail ?? told.title ?? `The gateway answers ${answer.status}.`);
    } else {
      token = used;
      dialog.close();
      then?.(told);
    }
  } catch {
    fail("The gateway does not answer.");
  } finally {
    one("change-do").disabled = false;
  }
}

function fail(text) {
  set(problem, text);
  problem.hidden = false;
}
