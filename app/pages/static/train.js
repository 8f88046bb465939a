// The train page: drop a file, preview its beginning, send it with a progress bar. Without scripts the form works alone.
"use strict";

const PREVIEW_BYTES = 2 << 20; // Bytes of a long text file that a preview is of.
const WHOLE_BYTES = 64 << 20; // Bytes of a binary file that is previewed as a whole, unless asked for.
const DELAY = 250; // Milliseconds after a change before the preview is made again.
const TEXT = /\.(csv|tsv|tab|txt|ndjson|jsonl)$/i;
// Options that change how the file is read, and so the preview.
const READING = new Set(["sep", "decimal", "thousands", "dates", "header", "encoding", "skip", "sheet", "na", "strip", "kind", "model", "schema"]);

const form = document.getElementById("train-form");
const input = document.getElementById("file");
const drop = document.getElementById("drop");
const preview = document.getElementById("preview");
const show = document.getElementById("show");
const train = document.getElementById("train");
const upload = document.getElementById("upload");
const bar = document.getElementById("progress");
const text = document.getElementById("progress-text");
const previewStatus = document.getElementById("preview-status");

const model = document.getElementById("model");

let named = ""; // the model's name that was suggested
let previewed = null; // the file whose columns are shown
let request = null; // the upload
let pending = null; // the preview
let timer = 0;

form.classList.add("scripted");
form.querySelectorAll(".if-script").forEach((part) => (part.hidden = false));

function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) {
    bytes /= 1000;
    unit += 1;
  }
  return `${unit ? bytes.toPrecision(3) : bytes} ${units[unit]}`;
}

// Choose

function choose(files) {
  if (files.length !== 1) {
    fail(`${files.length} files were dropped. Drop one.`);
    return;
  }
  const chosen = new DataTransfer();
  chosen.items.add(files[0]);
  input.files = chosen.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    if (event.dataTransfer?.types.includes("Files")) {
      event.preventDefault(); // or the browser would open the file
      drop.classList.toggle("over", drop.contains(event.target));
    }
  });
}
document.addEventListener("dragleave", () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  if (!event.dataTransfer?.files.length) {
    return;
  }
  event.preventDefault();
  drop.classList.remove("over");
  choose(event.dataTransfer.files);
});

form.addEventListener("change", (event) => {
  if (event.target === input) {
    const file = input.files[0];
    if (file?.name !== previewed?.name) {
      clearColumns(); // those of another file
    }
    const chosen = document.getElementById("chosen");
    chosen.hidden = !file;
    chosen.textContent = file ? size(file.size) : "";
    if (!file) {
      return;
    }
    if (isText(file) || file.size <= WHOLE_BYTES) {
      makePreview();
    } else {
      say(`The preview has to upload all ${size(file.size)}. Preview the file with the button, or train without a preview.`);
    }
  } else if ((READING.has(event.target.name) || pending) && input.files.length && previewed) {
    pending?.abort(); // its response would undo this change
    clearTimeout(timer);
    timer = setTimeout(makePreview, DELAY);
  }
});

function clearColumns() {
  for (const field of preview.querySelectorAll("input, select")) {
    if (field.type === "checkbox") {
      field.checked = false;
    } else {
      field.value = "";
    }
  }
}

// Preview

const isText = (file) => TEXT.test(file.name) || file.type.startsWith("text/");

// Returns the beginning of a text file, up to the end of a line that is not within quotes.
async function beginning(file) {
  const bytes = new Uint8Array(await file.slice(0, PREVIEW_BYTES).arrayBuffer());
  const wide = (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff);
  const low = wide && bytes[0] === 0xfe ? 1 : 0; // place of the lower byte of a character
  let end = 0;
  let quoted = false;
  for (let at = low; at < bytes.length; at += wide ? 2 : 1) {
    if (bytes[at] === 0x22) {
      quoted = !quoted;
    } else if (bytes[at] === 0x0a && !quoted) {
      end = at - low + (wide ? 2 : 1);
    }
  }
  return new File([bytes.subarray(0, end || bytes.length)], file.name, { type: file.type });
}

async function makePreview() {
  pending?.abort();
  const mine = (pending = new AbortController());
  const file = input.files[0];
  say(`Reading ${file.name}`);
  preview.setAttribute("aria-busy", "true");
  try {
    const fields = new FormData(form);
    fields.delete("file");
    let part = file;
    if (isText(file) && file.size > PREVIEW_BYTES) {
      part = await beginning(file);
      fields.append("preview_of", `${size(file.size)}, and this preview covers the first ${size(part.size)}`);
    }
    fields.append("file", part);
    const response = await fetch(show.formAction, {
      method: "POST",
      body: fields,
      headers: { "Linserve-Fragment": "true", Accept: "text/html" },
      signal: mine.signal,
    });
    const location = response.headers.get("Linserve-Sign-In");
    if (location) {
      window.location.assign(location);
      return;
    }
    put(await response.text());
    if (nameModel()) {
      makePreview(); // now compared with that model
      return;
    }
    say(response.ok ? "The preview is below." : "The file has a fault; see below.");
  } catch (error) {
    if (mine.signal.aborted) {
      return;
    }
    fail("The preview failed, because the service does not answer or the file has changed. Choose the file again.");
  }
  if (pending === mine) {
    pending = null;
    preview.removeAttribute("aria-busy");
  }
}

// Cancels the preview that waits or loads, because it would replace the response to the submitted form.
function leavePreview() {
  clearTimeout(timer);
  pending?.abort();
  pending = null;
  preview.removeAttribute("aria-busy");
}

// Replaces the preview by the service's, in which all values are escaped. The focus stays on its control.
function put(html) {
  const focused = preview.contains(document.activeElement) ? document.activeElement.id : "";
  const parsed = new DOMParser().parseFromString(html, "text/html");
  const part = parsed.getElementById("preview") ?? (parsed.querySelector("main") || parsed.body);
  const faulty = part.querySelector("[data-faulty]")?.dataset.faulty.split(" ") ?? [];
  const alert = part.querySelector("[role=alert]");
  if (alert && previewed === input.files[0] && !part.querySelector("table")) {
    preview.querySelector(":scope > .alert")?.remove(); // the columns are still those of this file
    preview.prepend(alert);
  } else {
    preview.replaceChildren(...part.childNodes);
    previewed = preview.querySelector("table") ? input.files[0] : null;
  }
  for (const field of form.querySelectorAll("input[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
  }
  for (const name of faulty) {
    form.querySelector(`input[name="${CSS.escape(name)}"]:not([type=radio], [type=checkbox])`)?.setAttribute("aria-invalid", "true");
  }
  if (focused) {
    document.getElementById(focused)?.focus();
  }
}

// Names the model as the file, unless a name was given. Returns true if there is a model of that name.
function nameModel() {
  const suggested = preview.querySelector("[data-model]")?.dataset.model ?? "";
  if (model.value !== named || suggested === named) {
    return false;
  }
  model.value = named = suggested;
  return [...document.getElementById("models").options].some((option) => option.value === suggested);
}

function say(words) {
  previewStatus.textContent = words;
}

function fail(message) {
  const alert = document.createElement("p");
  alert.className = "alert alert-error";
  alert.setAttribute("role", "alert");
  alert.textContent = message;
  preview.querySelector(":scope > .alert")?.remove();
  preview.prepend(alert);
  say("");
}

// Send

form.addEventListener("submit", (event) => {
  if (event.submitter === show) {
    event.preventDefault();
    makePreview();
    return;
  }
  event.preventDefault();
  send();
});

function send() {
  leavePreview();
  const fields = new FormData(form);
  const file = fields.get("file");
  fields.delete("file");
  fields.append("file", file); // after the options, which may then be refused first
  request = new XMLHttpRequest();
  request.open("POST", form.action);
  request.setRequestHeader("Accept", "text/html");
  const started = performance.now();
  let said = 0;
  request.upload.addEventListener("progress", ({ loaded, total }) => {
    const share = total ? loaded / total : 0;
    bar.value = share;
    const left = ((performance.now() - started) / 1000) * (1 / share - 1);
    const rest = share > 0.02 && left > 3 ? `, about ${left < 90 ? `${Math.ceil(left)} s` : `${Math.ceil(left / 60)} min`} left` : "";
    text.textContent = `Sending ${file.name}: ${size(loaded)} of ${size(total)}${rest}`;
    if (share >= said + 0.25) {
      said = Math.floor(share * 4) / 4;
      announce(`${100 * said} % of the file is sent.`);
    }
  });
  request.upload.addEventListener("load", () => {
    bar.removeAttribute("value");
    text.textContent = "The file was received. The service checks its columns.";
    announce(text.textContent);
  });
  request.addEventListener("load", () => answered(request));
  request.addEventListener("error", () => {
    stop();
    fail("The upload failed: the connection was closed. Send the file again.");
    preview.scrollIntoView();
  });
  request.addEventListener("abort", () => {
    stop();
    announce("The upload was cancelled. Nothing was stored.");
  });
  upload.hidden = false;
  train.disabled = true;
  bar.value = 0;
  text.textContent = `Sending ${file.name}`;
  request.send(fields);
}

function answered({ status, responseURL, responseText }) {
  if (status < 400 && !responseURL.endsWith("/train")) {
    window.location.assign(responseURL); // the page of the job, or the one to sign in
    return;
  }
  stop();
  put(responseText);
  preview.scrollIntoView();
  const alert = preview.querySelector("[role=alert]");
  if (alert) {
    alert.tabIndex = -1;
    alert.focus({ preventScroll: true });
  }
}

function stop() {
  request = null;
  upload.hidden = true;
  train.disabled = false;
}

document.getElementById("cancel").addEventListener("click", () => request?.abort());
// A page that the browser shows again, as it was, sends nothing any more.
window.addEventListener("pageshow", (event) => event.persisted && stop());
window.addEventListener("beforeunload", (event) => request?.upload && bar.hasAttribute("value") && event.preventDefault());
