/** Requests to the service, with the key that it asks for. The key stays in this tab's sessionStorage. */

const TIMEOUT_MS = 40_000; // the service gives a body 30 s to arrive
const RETRYABLE = new Set([408, 429, 500, 502, 503, 504]);

const $ = (id) => document.getElementById(id);
export const store = openStore();

/** An error to show, with what to do about it. */
export class Problem extends Error {
  constructor(message, remedy, { again = false } = {}) {
    super(message);
    this.remedy = remedy;
    this.again = again; // whether the same request may succeed later
  }
}

export async function send(path, options = {}) {
  try {
    return await fetch(path, { ...options, signal: AbortSignal.timeout(TIMEOUT_MS) });
  } catch (error) {
    if (error.name === "TimeoutError") {
      const seconds = TIMEOUT_MS / 1000;
      throw new Problem(`no answer came within ${seconds} seconds`, "try again, or send a smaller picture", { again: true });
    }
    const message = navigator.onLine ? "the service cannot be reached" : "this device is offline";
    throw new Problem(message, "check the connection, then try again", { again: true });
  }
}

/** Send a request and read its JSON answer; ask the person for a key where the service wants one. */
export async function request(path, options = {}) {
  const scope = path.split(/[/?]/)[1]; // predictions and feedback may need different keys
  for (;;) {
    const key = store.getItem(`key/${scope}`) ?? store.getItem("key/predict");
    const response = await send(path, { ...options, headers: { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) } });
    if (response.status !== 401) return read(response);
    await askForKey(scope, key !== null);
  }
}

export async function read(response) {
  const content = await response.json().catch(() => null); // a proxy's error page is not JSON
  if (response.ok && content !== null) return content;
  const error = content?.error ?? {};
  const seconds = response.headers.get("retry-after");
  const message = error.message ?? (response.ok ? "the answer is incomplete" : `the service answers ${response.status}`);
  const remedy = error.remedy ?? `try again ${seconds ? `in ${seconds} s` : "in a moment"}`;
  throw new Problem(message, remedy, { again: response.ok || RETRYABLE.has(response.status) });
}

function askForKey(scope, wrong) {
  const form = $("key-form");
  $("key-why").textContent = wrong ? "The last key is wrong." : "";
  form.hidden = false;
  $("key").focus();
  return new Promise((resolve, reject) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      store.setItem(`key/${scope}`, $("key").value);
      form.reset();
      form.hidden = true;
      resolve();
    };
    $("key-cancel").onclick = () => {
      form.hidden = true;
      reject(new Problem("the service asks for a key", "ask its operator for one", { again: true }));
    };
  });
}

function openStore() {
  try {
    return window.sessionStorage;
  } catch {
    const values = new Map(); // storage is blocked here
    return { getItem: (name) => values.get(name) ?? null, setItem: (name, value) => values.set(name, value) };
  }
}
