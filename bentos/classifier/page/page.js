/**
 * Classifies pictures and takes feedback. Pictures are sent to this service only; recent predictions and the key
 * stay in this tab's sessionStorage.
 */

import { article, asSentence, make, percent } from "./elements.js";
import * as gallery from "./gallery.js";
import { Problem, read, request, send, store } from "./service.js";

const LARGE_BYTES = 4_000_000; // above this a picture is made smaller before it travels
const SHRUNK_SIDE = 1024; // far more than the network's input: nothing that it could see is lost
const THUMBNAIL_SIDE = 320;
const NUM_RECENT = 12;
const UNLIKE = "unlike what it knows"; // in the place of a percentage
const SAMPLES = "fashion-samples"; // sample pictures are no traffic: fashion/predictions/record.py leaves their rows out

const $ = (id) => document.getElementById(id);
let model = null;
let examples = {}; // class -> address of a sample picture of it
let recent = JSON.parse(store.getItem("recent") ?? "[]"); // newest first
let shown = null; // the prediction on the page
let busy = false;

// A picture

/**
 * Classify a picture and show the answer.
 * @param source gives the picture's bytes as a Blob
 * @param truth label of a test picture
 */
async function classify(source, truth = null) {
  if (busy) return;
  setBusy(true);
  try {
    show(await answer(source, truth));
    bringIntoView($("figures"));
  } catch (error) {
    show(null); // the previous answer would look like this picture's
    showProblem(error, () => classify(source, truth));
  } finally {
    setBusy(false);
  }
}

/**
 * Classify several pictures, one after the other, and show the first one; the answers are all in the list below.
 * What the service refuses is named at the end. Where it cannot answer now, the pictures that are left wait for a
 * person to try again.
 */
async function classifyAll(files) {
  if (files.length === 1) return classify(() => files[0]);
  if (busy) return;
  setBusy(true);
  const left = files.slice(0, NUM_RECENT);
  const count = left.length;
  const refused = [];
  let first = null;
  try {
    for (; left.length > 0; left.shift()) {
      $("progress").textContent = `Picture ${count - left.length + 1} of ${count}`;
      try {
        const entry = await answer(() => left[0]);
        first ??= entry;
        show(first);
      } catch (error) {
        if (error.again !== false) throw error; // it concerns the others, too
        refused.push({ file: left[0], error });
      }
    }
    if (first === null) show(null);
    const problem = problemOf(refused, count, files.length);
    if (problem) showProblem(problem);
    else $("recent-section").scrollIntoView();
  } catch (error) {
    show(first);
    showProblem(error, () => classifyAll(left));
  } finally {
    $("progress").textContent = "";
    setBusy(false);
  }
}

/** What to say of pictures without an answer; null where there is none. */
function problemOf(refused, count, chosen) {
  const reasons = refused.map(({ file, error }) => `${file.name}: ${error.message}`).join("; ");
  const sentences = [];
  if (refused.length > 0) sentences.push(`${refused.length} of ${count} pictures have no answer (${reasons})`);
  if (chosen > count) sentences.push(`the first ${count} of ${chosen} pictures were sent`);
  const remedy = refused.length > 0 ? refused[0].error.remedy : "send the others after them";
  return sentences.length > 0 ? new Problem(sentences.join("; "), remedy) : null;
}

/** The service's answer on a picture, which is added to the recent ones. */
async function answer(source, truth = null) {
  const headers = truth === null ? {} : { "X-Client": SAMPLES };
  const picture = await prepare(await source());
  const body = new FormData();
  body.append("image", picture.blob, "picture");
  const answered = await request("/predict?explain=true", { method: "POST", headers, body });
  const entry = { ...answered, truth, feedback: null };
  entry.thumbnail = picture.thumbnail ?? answered.picture;
  entry.preprocessing = [...picture.steps, ...answered.preprocessing];
  recent = [entry, ...recent].slice(0, NUM_RECENT);
  saveRecent();
  return entry;
}

/** What to upload, its thumbnail, and the steps that were done in the browser. */
async function prepare(file) {
  const bitmap = await createImageBitmap(file).catch(() => null); // the service reads formats that a browser does not
  const thumbnail = bitmap && draw(bitmap, THUMBNAIL_SIDE).toDataURL("image/webp", 0.85);
  if (file.size <= LARGE_BYTES) {
    // Read now: a folder or a deleted file would otherwise look like a broken connection.
    const bytes = await file.arrayBuffer().catch(() => {
      throw new Problem("that cannot be read", "choose one picture, not a folder");
    });
    return { blob: new Blob([bytes], { type: file.type }), thumbnail, steps: [] };
  }
  if (bitmap === null) {
    const message = "the file is larger than 4 MB, and this browser cannot read it to make it smaller";
    throw new Problem(message, "save it as JPEG or PNG first");
  }
  const canvas = draw(bitmap, SHRUNK_SIDE);
  const type = file.type === "image/jpeg" ? file.type : "image/png"; // JPEG has no transparency
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, type, 0.92));
  const step = `made smaller in this browser, ${bitmap.width}x${bitmap.height} to ${canvas.width}x${canvas.height}`;
  return { blob, thumbnail, steps: [step] };
}

function draw(bitmap, side) {
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const size = (length) => Math.max(1, Math.round(scale * length));
  const canvas = make("canvas", { width: size(bitmap.width), height: size(bitmap.height) });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/** Classify the pictures of a drop or of the clipboard. */
function classifyTransfer(transfer) {
  const files = [...transfer.files];
  const pictures = files.filter((each) => each.type.startsWith("image/"));
  if (files.length > 0) classifyAll(pictures.length > 0 ? pictures : files.slice(0, 1));
  else showProblem(new Problem("that is not a picture", "save the picture as a file, or copy the picture itself, not its address"));
}

// The answer

/** Show an answer, or with null the page before any. */
function show(entry) {
  shown = entry;
  $("problem").hidden = true;
  $("result").toggleAttribute("data-empty", entry === null);
  $("result").toggleAttribute("data-unlike", entry !== null && isUnlike(entry));
  for (const id of ["figures", "feedback", "prepared"]) $(id).hidden = entry === null;
  $("calibration").hidden = entry === null || isUnlike(entry); // it explains the percentages
  if (entry === null) {
    $("sentence").replaceChildren(make("span", {}, "The classes it knows"));
  } else {
    $("sentence").replaceChildren(...sentence(entry));
    setPicture($("picture"), entry.thumbnail, "The picture");
    setPicture($("heat-map"), entry.heat_map, `Heat map: what "${entry.label}" rests on`);
    setPicture($("seen"), entry.picture, "What the network saw");
    $("seen-size").textContent = model ? `What it saw: ${model.size} × ${model.size} pixels` : "What it saw";
    $("truth").textContent = entry.truth ? `A test picture, labelled ${entry.truth}` : "";
    $("steps").replaceChildren(...entry.preprocessing.map((step) => make("li", {}, step)));
    $("answered-by").textContent = `Answered by ${entry.model.name}, version ${entry.model.version}`;
    showFeedback();
  }
  showBars();
  showRecent();
}

function showBars() {
  const sorted = Object.entries(shown?.probabilities ?? {}).sort((one, other) => other[1] - one[1]);
  const names = (model?.class_names ?? []).map((name) => [name, null]);
  const unlike = shown !== null && isUnlike(shown);
  const certainty = (probability, rank) => (unlike ? (rank === 0 ? `nearest, but ${UNLIKE}` : "") : percent(probability));
  $("bars").ariaLabel = unlike ? "The classes it knows, the nearest first" : "Probability of each class";
  $("bars").replaceChildren(
    ...(shown ? sorted : names).map(([name, probability], rank) =>
      bar(name, unlike ? 0 : probability, certainty(probability, rank)),
    ),
  );
}

/** Whether a picture is unlike anything that the model has learnt: its probabilities mean nothing then. */
function isUnlike({ typical }) {
  return typical === false;
}

function sentence(entry) {
  const { label, confidence } = entry;
  if (isUnlike(entry)) {
    const lead = "This does not look like anything the model has learnt. Of the classes it knows, the nearest is";
    return [make("span", {}, lead), " ", make("strong", {}, `${article(label)} ${label}`)];
  }
  const lead = confidence >= 0.5 ? "The model believes this is" : "The model is not sure. Its best guess is";
  const certainty = `with a certainty of ${percent(confidence).replace("> ", "more than ")}`;
  return [make("span", {}, lead), " ", make("strong", {}, `${article(label)} ${label}`), " ", make("span", {}, certainty)];
}

function bar(name, probability, certainty) {
  const picture = { src: examples[name], alt: "", width: 28, height: 28, draggable: false };
  const example = name in examples ? [make("img", picture)] : [];
  const fill = make("span");
  fill.style.width = `${100 * (probability ?? 0)}%`;
  const track = make("span", { className: "track", ariaHidden: "true" }, fill);
  const number = make("span", { className: "number" }, certainty);
  return make("li", {}, ...example, make("span", {}, name), track, number);
}

function showFeedback(editing = shown.feedback === null) {
  $("feedback-ask").hidden = !editing;
  $("feedback-sent").hidden = editing;
  $("feedback-title").textContent = editing ? "Is that right?" : "Your feedback";
  const label = shown.feedback === shown.label ? "right" : `${article(shown.feedback ?? "")} ${shown.feedback}`;
  $("feedback-status").textContent = editing ? "" : `Thank you. Stored as: ${label}.`;
  const others = Object.keys(shown.probabilities).filter((name) => name !== shown.label);
  const empty = make("option", { value: "" }, "choose…");
  $("true-label").replaceChildren(empty, ...others.map((name) => make("option", {}, name)));
  $("true-label").value = shown.feedback === shown.label ? "" : (shown.feedback ?? "");
}

async function giveFeedback(trueLabel) {
  if (busy) return;
  const entry = shown;
  setBusy(true);
  try {
    const body = JSON.stringify({ prediction_id: entry.prediction_id, true_label: trueLabel, source: "page" });
    await request("/feedback", { method: "POST", body, headers: { "Content-Type": "application/json" } });
    $("problem").hidden = true;
    entry.feedback = trueLabel;
    saveRecent();
    showFeedback();
    showRecent();
    $("change").focus(); // the button that had the focus is hidden
  } catch (error) {
    showProblem(error, () => giveFeedback(trueLabel));
  } finally {
    setBusy(false);
  }
}

function showProblem(error, again = null) {
  if (!(error instanceof Problem)) {
    console.error(error);
    error = new Problem("something in this page went wrong", "load the page again");
  }
  const box = $("problem");
  box.replaceChildren(make("p", {}, make("strong", {}, asSentence(error.message)), " ", asSentence(error.remedy)));
  if (error.again && again) {
    const button = make("button", { type: "button", className: "button", onclick: again }, "Try again");
    box.append(button);
  }
  box.hidden = false;
  bringIntoView(box);
}

// Recent predictions

function showRecent() {
  $("recent-section").hidden = recent.length === 0;
  $("recent").replaceChildren(...recent.map(recentItem));
}

function recentItem(entry) {
  const note = entry.feedback && (entry.feedback === entry.label ? "you said: right" : `you said: ${entry.feedback}`);
  const image = setPicture(make("img", { draggable: false }), entry.thumbnail, "");
  const words = [make("strong", {}, entry.label), " ", make("span", {}, isUnlike(entry) ? UNLIKE : percent(entry.confidence)), " "];
  const button = make("button", { type: "button" }, image, make("span", {}, ...words, make("small", {}, note ?? "")));
  if (entry === shown) button.ariaCurrent = "true";
  button.onclick = () => {
    if (busy) return;
    show(entry);
    $("recent").children[recent.indexOf(entry)].firstChild.focus(); // the list was replaced
    bringIntoView($("figures"));
  };
  return make("li", {}, button);
}

function saveRecent() {
  for (let count = recent.length; ; count -= 1) {
    try {
      store.setItem("recent", JSON.stringify(recent.slice(0, count)));
      return;
    } catch {
      if (count === 0) return; // no space at all: they last as long as the page
    }
  }
}

// Parts of the page

function setBusy(now) {
  busy = now;
  document.body.classList.toggle("busy", now);
  $("result").ariaBusy = String(now);
  // Not `disabled`: a disabled control loses the keyboard focus.
  for (const each of document.querySelectorAll("button:not(#key-form *), input[type=file]")) {
    each.ariaDisabled = now ? "true" : null;
  }
}

function setPicture(image, url, alt) {
  image.alt = alt;
  image.onload = () => image.classList.toggle("tiny", image.naturalWidth <= 64); // enlarge small pictures without blur
  image.src = url;
  return image;
}

function bringIntoView(element) {
  if (matchMedia("(max-width: 56rem)").matches) element.scrollIntoView();
}

/** Classify a sample picture. */
function classifySample({ url, label }) {
  const bytes = async () => {
    const response = await send(url);
    return response.ok ? response.blob() : read(response);
  };
  return classify(bytes, label);
}

// The page

async function start() {
  $("problem").hidden = true;
  try {
    model = await request("/model");
  } catch (error) {
    showProblem(error, start);
    return;
  }
  show(shown);
  showModel();
  const { images } = await request("/gallery").catch(() => ({ images: [] })); // the page works without a gallery
  $("gallery-section").hidden = images.length === 0;
  gallery.fill($("gallery"), images, classifySample);
  examples = Object.fromEntries(images.map(({ url, label }) => [label, url]).reverse()); // the first of each class
  showBars();
}

function showModel() {
  const summary = model.summary ? asSentence(model.summary) : "";
  const shadow = model.shadow ? ` Version ${model.shadow} scores every picture too, as its shadow.` : "";
  const canary = model.canary
    ? ` Version ${model.canary} answers ${Math.round(1000 * model.canary_share) / 10} % of the clients, as its canary.`
    : "";
  $("model").replaceChildren(make("strong", {}, `${model.name}, version ${model.version}`), ` ${summary}${shadow}${canary}`);
  const round = (value) => Number(value.toPrecision(3));
  const metrics = Object.entries(model.metrics ?? {}).map(([name, { value, low, high }]) => {
    const interval = typeof low === "number" && typeof high === "number" ? ` (${round(low)} to ${round(high)})` : "";
    return [name, `${round(value)}${interval}`];
  });
  const details = [...metrics, ...Object.entries(model.lineage ?? {})].map(([name, value]) =>
    make("div", {}, make("dt", {}, name.replaceAll("_", " ")), make("dd", {}, String(value))),
  );
  $("model-details").replaceChildren(...details);
  $("lineage").hidden = details.length === 0;
}

gallery.listen($("gallery"));
for (const id of ["file", "photo"]) {
  $(id).addEventListener("change", ({ target }) => {
    const files = [...target.files];
    target.value = ""; // the same file may be chosen again
    if (files.length > 0) classifyAll(files);
  });
}
$("right").onclick = () => giveFeedback(shown.label);
$("feedback-form").onsubmit = (event) => {
  event.preventDefault();
  giveFeedback($("true-label").value);
};
$("change").onclick = () => {
  showFeedback(true);
  $("right").focus();
};
$("clear").onclick = () => {
  recent = [];
  saveRecent();
  show(null);
  $("file").focus();
};

const dragging = (now) => document.body.classList.toggle("dragging", now);
addEventListener("dragover", (event) => {
  event.preventDefault();
  dragging(true);
});
addEventListener("dragleave", (event) => dragging(event.relatedTarget !== null)); // null: it left the window
addEventListener("drop", (event) => {
  event.preventDefault();
  dragging(false);
  classifyTransfer(event.dataTransfer);
});
addEventListener("paste", (event) => {
  if (!event.target.closest?.("input, select")) classifyTransfer(event.clipboardData);
});

start();
