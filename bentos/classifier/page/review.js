/**
 * Shows predictions that are worth a label, one at a time, and sends what a person says: one key or one tap each.
 * The browser sends the key that it asked for; nothing is stored here.
 */

import { asSentence, make } from "./elements.js";

const KEYS = "1234567890" + "qwertyuiop" + "asdfghjkl" + "zxcvbnm"; // in the order of the classes; more classes have no key
const FEW = 5; // pictures left from which on more are fetched

const $ = (id) => document.getElementById(id);
let waiting = []; // the first one is on the page
let done = []; // of this session, the last one last
let skipped = [];
let names = [];
let busy = Promise.resolve(); // requests go one after the other
let fetching = false;

/** An error to show, with what to do about it. */
class Problem extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

async function request(path, content = null) {
  const options = content && { method: "POST", body: JSON.stringify(content), headers: { "Content-Type": "application/json" } };
  const response = await fetch(location.origin + path, options ?? {}).catch(() => {
    throw new Problem("The service cannot be reached. Check the connection, then load the page again.");
  });
  const answer = response.status === 204 ? {} : await response.json().catch(() => null);
  if (response.ok && answer !== null) return answer;
  const { message, remedy } = answer?.error ?? {};
  throw new Problem(message ? `${asSentence(message)} ${asSentence(remedy)}` : `The service answers ${response.status}. Try again in a moment.`, response.status);
}

function showProblem(error) {
  if (!(error instanceof Problem)) console.error(error);
  $("problem").textContent = error instanceof Problem ? error.message : "Something in this page went wrong. Load it again.";
  $("problem").hidden = false;
}

/** Do one thing after the other, and show what goes wrong. */
function inOrder(action) {
  busy = busy.then(action).catch(showProblem);
  return busy;
}

async function fetchMore() {
  if (fetching) return;
  fetching = true;
  try {
    const shown = waiting.map((item) => item.prediction_id);
    const queue = await request(`/review/queue?shown=${shown.join(",")}&skipped=${skipped.slice(-100).join(",")}`);
    if (names.length === 0) showClasses(queue.class_names);
    const known = new Set([...shown, ...skipped, ...done.map((each) => each.item.prediction_id)]);
    waiting.push(...queue.items.filter((item) => !known.has(item.prediction_id)));
    showProgress(queue);
    show(queue);
  } finally {
    fetching = false;
  }
}

function show(queue = null) {
  const item = waiting[0];
  $("desk").hidden = item === undefined && done.length === 0;
  for (const button of [...document.querySelectorAll("#classes button"), $("skip")]) button.disabled = item === undefined;
  $("undo").disabled = done.length === 0;
  $("card").hidden = item === undefined;
  if (item) {
    $("picture").src = item.picture;
    $("why").textContent = `Shown because: ${item.why}`;
    $("title").textContent = "What is on this picture?";
  } else if (queue) {
    $("title").textContent = queue.predictions + queue.without_picture === 0 ? "There are no predictions yet" : "Nothing waits for a label";
    if (queue.without_picture > 0) {
      showProblem(new Problem(`Of the latest predictions, ${queue.without_picture.toLocaleString("en")} or more have no stored picture. Was the service built with serve.log.images=true?`));
    }
  }
}

function showClasses(classes) {
  names = classes;
  $("classes").replaceChildren(
    ...names.map((name, index) => {
      const key = make("kbd", {}, (KEYS[index] ?? "·").toUpperCase());
      const button = make("button", { type: "button", className: "button", onclick: () => label(index) }, key, name);
      return make("li", {}, button);
    }),
  );
}

function showProgress({ judged, predictions, accuracy, known, quarantined }) {
  $("quarantined").hidden = !quarantined;
  $("session").textContent = done.length;
  $("judged").replaceChildren(`${judged.toLocaleString("en")}`, make("small", {}, `of the latest ${predictions.toLocaleString("en")} predictions`));
  $("known").hidden = known === null;
  if (known) $("known-right").textContent = `${known.right.toLocaleString("en")} of ${known.pictures.toLocaleString("en")} right`;
  const percent = (value) => `${(100 * value).toFixed(1)} %`;
  $("accuracy").replaceChildren(
    ...(accuracy === null
      ? ["–", make("small", {}, "once pictures drawn at random are reviewed")]
      : [percent(accuracy.accuracy), make("small", {}, `${percent(accuracy.low)} to ${percent(accuracy.high)}, of ${accuracy.predictions.toLocaleString("en")} predictions, by ${accuracy.drawn} drawn at random`)]),
  );
}

function label(index) {
  const item = waiting.shift();
  if (item === undefined || names[index] === undefined) return;
  const entry = { item, label: names[index] };
  done.push(entry);
  $("session").textContent = done.length;
  show();
  inOrder(async () => {
    try {
      const answer = await request("/review/label", { prediction_id: item.prediction_id, true_label: names[index] });
      $("problem").hidden = true;
      const agreed = answer.predicted === entry.label;
      $("last").textContent = agreed ? `${entry.label}: the model said so too.` : `You said ${entry.label}, the model had said ${answer.predicted}.`;
    } catch (error) {
      done = done.filter((each) => each !== entry); // it is not stored, and waits again
      if (error.status === 404) await fetchMore(); // it is gone, as after an update of the service
      else waiting.unshift(item);
      show();
      throw error;
    }
    if (waiting.length < FEW || done.length % 5 === 0) await fetchMore();
  });
}

function skip() {
  const item = waiting.shift();
  if (item === undefined) return;
  skipped.push(item.prediction_id);
  show();
  inOrder(async () => {
    await request("/review/skip", { prediction_id: item.prediction_id });
    $("last").textContent = "Left out.";
    if (waiting.length < FEW) await fetchMore();
  });
}

function undo() {
  const entry = done.pop();
  if (entry === undefined) return;
  waiting.unshift(entry.item);
  $("session").textContent = done.length;
  show();
  inOrder(async () => {
    try {
      await request("/review/undo", { prediction_id: entry.item.prediction_id });
      $("last").textContent = `Undone: ${entry.label}.`;
    } catch (error) {
      waiting = waiting.filter((item) => item !== entry.item); // it still counts
      done.push(entry);
      $("session").textContent = done.length;
      show();
      throw error;
    }
  });
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey && event.key === "z" && !event.shiftKey) undo();
  else if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  else if (event.key === "Backspace") undo();
  else if (event.key === " " && !(event.target instanceof HTMLButtonElement && event.target.matches(":focus-visible"))) skip();
  else if (KEYS.includes(event.key.toLowerCase()) && event.key.length === 1) label(KEYS.indexOf(event.key.toLowerCase()));
  else return;
  event.preventDefault();
});
$("skip").onclick = skip;
$("undo").onclick = undo;
inOrder(fetchMore);
