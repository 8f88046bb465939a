// The pages of models and versions: sorting and copying tables, and live updates. Without scripts, all else works.
"use strict";

const MINIMUM_PAUSE = 5000; // milliseconds between two updates of one part

// Sorting. The header cells of tables with data-tools become buttons.

function valueOf(row, column) {
  const cell = row.cells[column];
  const data = cell.querySelector("data");
  return data ? Number(data.value) : cell.classList.contains("number") ? NaN : cell.textContent.trim();
}

function order(one, other) {
  if (typeof one === "number" && typeof other === "number") {
    return Number.isNaN(one) ? (Number.isNaN(other) ? 0 : 1) : Number.isNaN(other) ? -1 : one - other;
  }
  return String(one).localeCompare(String(other), undefined, { numeric: true });
}

function sortBy(table, column) {
  const header = table.tHead.rows[0].cells[column];
  const descending = header.getAttribute("aria-sort") === "ascending";
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  rows.sort((one, other) => {
    const [first, second] = [valueOf(one, column), valueOf(other, column)];
    const isLast = Number.isNaN(first) || Number.isNaN(second); // withheld numbers stay at the end
    return descending && !isLast ? order(second, first) : order(first, second);
  });
  body.append(...rows);
  for (const cell of table.tHead.rows[0].cells) {
    cell.removeAttribute("aria-sort");
  }
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
}

// Copying, with all digits. A spreadsheet would take a name such as `=1+1` as a formula.

function textOf(cell) {
  const data = cell.querySelector("data");
  if (data) {
    return data.value;
  }
  const text = cell.textContent.trim();
  return /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
}

function linesOf(table, separator) {
  const quoted = (text) => (separator === "," && /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text.replace(/[\t\r\n]/g, " "));
  return Array.from(table.rows, (row) => Array.from(row.cells, (cell) => quoted(textOf(cell))).join(separator)).join("\n") + "\n";
}

function saveTable(table) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([linesOf(table, ",")], { type: "text/csv" }));
  link.download = `${table.dataset.tools}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function newButton(text, act) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet";
  button.textContent = text;
  button.addEventListener("click", () => act(button));
  return button;
}

for (const table of document.querySelectorAll("table[data-tools]")) {
  const tools = document.createElement("div");
  tools.className = "table-tools";
  tools.append(newButton("Copy the table", (button) => copyText(button, linesOf(table, "\t"), table)), newButton("Save as CSV", () => saveTable(table)));
  table.parentElement.before(tools);
  Array.from(table.tHead.rows[0].cells).forEach((cell, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.textContent = cell.textContent;
    button.addEventListener("click", () => sortBy(table, column));
    cell.replaceChildren(button);
  });
}

// Parts of the page from the server. The header asks for the part alone.

async function part(url, options = {}) {
  const answer = await fetch(url, { ...options, headers: { accept: "text/html", "linserve-fragment": "true" } });
  const signIn = answer.headers.get("linserve-sign-in");
  if (signIn) {
    location.assign(signIn);
    return null;
  }
  const template = document.createElement("template");
  template.innerHTML = await answer.text();
  showCopyButtons(template.content);
  return template.content;
}

// The form: the answer takes the place of the form and gets the focus. The lines for programs follow the fields.

function send(form, more = {}) {
  const fields = new URLSearchParams(new FormData(form));
  for (const [name, value] of Object.entries(more)) {
    fields.set(name, value);
  }
  return part(form.action, { method: "POST", body: fields });
}

async function predict(form) {
  const button = form.querySelector("button[type=submit]");
  const linesAreOpen = document.getElementById("code-details").open;
  button.disabled = true;
  try {
    const content = await send(form);
    if (content === null) {
      return;
    }
    const whole = content.getElementById("try-it");
    if (whole) {
      document.getElementById("try-it").replaceWith(content);
    } else {
      form.before(content); // a problem, such as a model that was deleted
    }
    document.getElementById("code-details").open = linesAreOpen;
    document.querySelector("#try-it [data-focus], #try-it [role=alert]")?.focus();
  } catch {
    form.submit(); // the browser explains what is wrong with the connection
  } finally {
    button.disabled = false;
  }
}

let changes = 0;
async function refreshLines(form) {
  const change = ++changes;
  const content = await send(form, { only: "lines" }).catch(() => null);
  if (content !== null && change === changes) {
    document.getElementById("code-lines").replaceChildren(content);
  }
}

document.addEventListener("submit", (event) => {
  if (event.target.id === "try-form") {
    event.preventDefault();
    changes++;
    predict(event.target);
  }
});
document.addEventListener("change", (event) => {
  if (event.target.form?.id === "try-form") {
    refreshLines(event.target.form);
  }
});

// A link to a field of an error, or to a note, opens what hides it.
function openAround(target) {
  for (let details = target?.closest("details"); details; details = details.parentElement.closest("details")) {
    details.open = true;
  }
}
window.addEventListener("hashchange", () => openAround(document.getElementById(decodeURIComponent(location.hash.slice(1)))));

// Live: the server sends what changes. A part is fetched again if its summary differs from the last one.

const PARTS = { versions: "lineage", drift: "drift", outcomes: "outcomes" };
const live = document.getElementById("live");

function follow(place) {
  const known = new Map([["versions", `${place.dataset.current} of ${place.dataset.versions}`]]);
  const waiting = new Map();
  const last = new Map();
  let source = null;

  async function refresh(name) {
    waiting.delete(name);
    last.set(name, Date.now());
    const place = document.getElementById(PARTS[name]);
    const content = await part(place.dataset.part).catch(() => null);
    if (content !== null) {
      place.replaceChildren(content);
    }
  }

  function received(name, text) {
    const before = known.get(name);
    known.set(name, text);
    if (before === undefined || before === text || waiting.has(name)) {
      return; // the page shows the first drift and the first outcomes
    }
    const pause = Math.max(0, (last.get(name) ?? 0) + MINIMUM_PAUSE - Date.now());
    waiting.set(name, setTimeout(refresh, pause, name));
  }

  function open() {
    source = new EventSource(place.dataset.events);
    for (const name of Object.keys(PARTS)) {
      source.addEventListener(name, (event) => {
        if (name === "versions") {
          const { current, versions } = JSON.parse(event.data);
          received(name, `${current ?? ""} of ${versions}`);
          noteCurrent(place, current);
        } else {
          received(name, event.data);
        }
      });
    }
  }

  // A browser has few connections to one host, for all of its tabs. A hidden tab needs none.
  function openIfShown() {
    source?.close();
    if (!document.hidden) {
      open();
    }
  }

  document.addEventListener("visibilitychange", openIfShown);
  window.addEventListener("pagehide", () => source?.close());
  window.addEventListener("pageshow", (event) => event.persisted && openIfShown());
  openIfShown();
}

function noteCurrent(place, current) {
  if (current === undefined || String(current ?? "") === place.dataset.current) {
    return;
  }
  place.dataset.current = String(current ?? "");
  const note = document.createElement("p");
  note.className = "alert alert-warn";
  const link = document.createElement("a");
  link.href = place.dataset.page;
  link.textContent = "Show the model as it is now";
  note.append(current === null ? "No version is current now. " : `Version ${current} is current now. `, link);
  place.replaceChildren(note);
}

if (live && window.EventSource) {
  follow(live);
}
