/** A form for each endpoint of the API page, made from /openapi.json. Requests go to this service and nowhere else. */

import { make } from "./elements.js";

const SHOWN_HEADERS = ["content-type", "retry-after", "allow", "www-authenticate"];
const LONGEST_TEXT = 4000; // characters of an answer that are shown
const KEY = "key/predict"; // where the page of the service stores its key too

const texts = []; // controls whose text may hold the id of a prediction
let latestId = "";
let key = "";
try {
  key = sessionStorage.getItem(KEY) ?? "";
} catch {
  // storage is forbidden here: the key lasts as long as the page
}

/** A labelled control; `id` must be unique on the page. */
function field(id, label, control, note = "") {
  control.id = id;
  const hint = note ? [make("small", { id: `${id}-note` }, note)] : [];
  if (note) control.setAttribute("aria-describedby", `${id}-note`);
  return make("div", { className: "field" }, make("label", { htmlFor: id }, label), control, ...hint);
}

/** Put the id of the latest prediction where the forms hold the one before, at first the example's. */
function useId(id) {
  if (!id) return;
  for (const each of texts) each.value = each.value.replaceAll(latestId, id);
  latestId = id;
}

function resolve(schema, api) {
  return schema?.$ref ? api.components.schemas[schema.$ref.split("/").at(-1)] : (schema ?? {});
}

// Parameters, each an input that knows where its value goes

function parameterInput(parameter) {
  if (parameter.schema.type === "boolean") return make("input", { type: "checkbox" });
  const value = parameter.in === "path" ? (parameter.example ?? "") : "";
  const input = make("input", { type: "text", value, required: parameter.required ?? false, autocomplete: "off" });
  texts.push(input);
  return input;
}

function address(path, parameters) {
  const query = new URLSearchParams();
  for (const { name, place, input } of parameters) {
    const value = input.type === "checkbox" ? (input.checked ? "true" : "") : input.value;
    if (place === "path") path = path.replace(`{${name}}`, encodeURIComponent(value));
    if (place === "query" && value) query.set(name, value);
  }
  return query.size ? `${path}?${query}` : path;
}

// Bodies: files of a form, one file as it is, or text

function bodyEditor(id, type, content, api) {
  if (type === "multipart/form-data" || type === "image/*") {
    const properties = content.schema.properties ?? {};
    const name = Object.keys(properties)[0] ?? "image";
    const multiple = properties[name]?.type === "array";
    const input = make("input", { type: "file", accept: "image/*", multiple, required: true });
    const asForm = type === "multipart/form-data";
    return {
      element: field(id, multiple ? "Pictures" : "Picture", input),
      read() {
        const files = [...input.files];
        if (!asForm) return { body: files[0], curl: ` -H 'content-type: ${files[0].type}' --data-binary @${quoted(files[0].name)}`, type: files[0].type };
        const body = new FormData();
        for (const file of files) body.append(name, file, file.name);
        return { body, curl: files.map((file) => ` -F ${name}=@${quoted(file.name)}`).join("") };
      },
    };
  }
  const example = content.example;
  const text = typeof example === "string" ? example : JSON.stringify(example, null, 1);
  const input = make("textarea", { value: text, rows: text.split("\n").length + 1, spellcheck: false });
  texts.push(input);
  const required = resolve(content.schema, api).required?.join(", ");
  return {
    element: field(id, type === "text/csv" ? "Table" : "JSON", input, required ? `Required: ${required}` : ""),
    read: () => ({ body: input.value, curl: ` -H 'content-type: ${type}' --data-binary ${quoted(input.value)}`, type }),
  };
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function operationForm(section, operation, api) {
  const { id } = section;
  const { method, path } = section.dataset;
  const parameters = (operation.parameters ?? []).map((each) => ({ name: each.name, place: each.in, note: each.description ?? each.schema.description ?? "", input: parameterInput(each) }));
  const form = make("form", { className: "try", ariaLabel: `Try ${method.toUpperCase()} ${path}` });
  const contents = Object.entries(operation.requestBody?.content ?? {});
  const editors = new Map(contents.map(([type, content], index) => [type, bodyEditor(`${id}-body-${index}`, type, content, api)]));
  const kind = make("select");
  kind.append(...contents.map(([type]) => make("option", { value: type }, type)));
  const bodyPlace = make("div", { className: "body" });
  kind.onchange = () => bodyPlace.replaceChildren(editors.get(kind.value).element);
  if (contents.length > 1) form.append(field(`${id}-type`, "Body", kind));
  if (contents.length) {
    form.append(bodyPlace);
    kind.onchange();
  }

  for (const { name, note, input } of parameters) form.append(field(`${id}-${name}`, name, input, note));

  const output = make("div", { className: "answer" });
  output.setAttribute("role", "status");
  form.append(make("button", { className: "button main" }, "Send"), output);
  form.onsubmit = async (event) => {
    event.preventDefault();
    if (form.ariaBusy === "true") return;
    form.ariaBusy = "true";
    const url = address(path, parameters);
    const headers = Object.fromEntries(parameters.filter((each) => each.place === "header" && each.input.value).map((each) => [each.name, each.input.value]));
    if (key) headers.Authorization = `Bearer ${key}`;
    const { body, curl = "", type } = contents.length ? editors.get(kind.value).read() : {};
    const shown = Object.entries(headers).map(([name, value]) => ` -H ${quoted(`${name}: ${name === "Authorization" ? "Bearer KEY" : value}`)}`);
    const command = `curl ${quoted(location.origin + url)}${shown.join("")}${curl}`;
    try {
      const started = performance.now();
      const response = await fetch(url, { method: method.toUpperCase(), body, headers: type ? { ...headers, "Content-Type": type } : headers });
      const text = await response.text();
      useId(text.match(/"prediction_id":"([^"]+)"/)?.[1]);
      showAnswer(output, command, response, text, performance.now() - started);
    } catch (error) {
      output.replaceChildren(make("p", { className: "status" }, make("strong", {}, "No answer"), ` ${error.message}`), make("pre", {}, command));
    } finally {
      form.ariaBusy = "false";
    }
  };
  return form;
}

function showAnswer(output, command, response, text, milliseconds) {
  const headers = SHOWN_HEADERS.filter((name) => response.headers.has(name)).map((name) => `${name}: ${response.headers.get(name)}`);
  const status = make("p", { className: "status" }, make("strong", {}, `${response.status} ${response.statusText}`.trim()), ` in ${Math.round(milliseconds)} ms`);
  let content = text;
  try {
    content = JSON.stringify(JSON.parse(text), (_, value) => (typeof value === "string" && value.startsWith("data:image/") ? `${value.slice(0, 40)}… (${value.length} characters)` : value), 1);
  } catch {
    // not JSON: shown as it is
  }
  if (content.length > LONGEST_TEXT) content = `${content.slice(0, LONGEST_TEXT)}… (${content.length} characters)`;
  const pictures = [...text.matchAll(/"(data:image\/[a-z]+;base64,[^"]+)"/g)].map(([, url]) => make("img", { src: url, alt: "A picture of the answer", width: 112, height: 112 }));
  output.replaceChildren(status, make("pre", { className: "headers" }, headers.join("\n")), make("pre", { className: "content", tabIndex: 0 }, content), make("div", { className: "pictures" }, ...pictures), make("pre", { className: "command" }, command));
}

function keyField() {
  const input = make("input", { type: "password", value: key, autocomplete: "off" });
  input.oninput = () => {
    key = input.value.trim();
    try {
      sessionStorage.setItem(KEY, key);
    } catch {
      // see above
    }
  };
  return make("div", { className: "try" }, field("api-key", "API key", input, "Only where the service asks for one. It stays in this tab and is sent to this service only."));
}

const api = await (await fetch("/openapi.json")).json();
latestId = api.paths["/feedback"]?.post.requestBody.content["application/json"].example.prediction_id ?? "none";
const place = document.getElementById("key-section");
place.append(keyField());
place.hidden = false;
for (const section of document.querySelectorAll(".operation")) {
  const operation = api.paths[section.dataset.path][section.dataset.method];
  section.querySelector("p").after(operationForm(section, operation, api));
}
