// The page of a job: follows it by server-sent events, draws its loss curve, and shows its end.
"use strict";

const job = document.getElementById("job");
const connection = document.getElementById("connection");
const news = document.getElementById("news");
const PHASES = {
  reading: "Reading the rows",
  fitting: "Fitting",
  diagnosing: "Looking at the rows again for diagnostics",
  publishing: "Publishing the version",
};
const SIGNED_OUT = "You are not signed in any more. Load the page again to sign in.";
const RETRY = [1000, 3000, 10000]; // milliseconds between attempts to connect again
let source = null;
let lost = 0; // attempts since the connection was lost
let last = null; // the job as it was last received
let plot = null;
const ran = job.querySelector('[data-field="time"]').dataset.seconds; // before the page was opened
let startedAt = ran ? performance.now() - 1000 * Number(ran) : null;
let ended = ["succeeded", "failed", "cancelled"].includes(job.dataset.status);

const part = (name) => job.querySelector(`[data-part="${name}"]`);
const field = (name) => job.querySelector(`[data-field="${name}"]`);

// As the service writes numbers: narrow spaces between thousands, 6 digits, a true minus.
function number(value) {
  if (value === null || value === undefined) {
    return "\u2013";
  }
  const whole = Number.isInteger(value) && Math.abs(value) < 1e15;
  const text = whole ? String(value).replace(/\B(?=(\d{3})+$)/g, "\u202f") : shortened(value);
  return text.replace(/-/g, "\u2212");
}

function shortened(value) {
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) {
    return value.toExponential(5).replace(/\.?0*e\+?/, "e");
  }
  return String(Number(value.toPrecision(6)));
}

function elapsed(seconds) {
  if (seconds < 1) {
    return "under 1 s";
  }
  if (seconds < 60) {
    return `${seconds < 10 ? Number(seconds.toPrecision(2)) : Math.round(seconds)} s`;
  }
  const units = [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]];
  const [unit, name, smaller, smallerName] = units.find(([size]) => seconds >= size);
  return `${Math.floor(seconds / unit)} ${name} ${Math.floor((seconds % unit) / smaller)} ${smallerName}`;
}

function say(text) {
  news.textContent = text;
}

// Show a message about the connection, or none.
function warn(text) {
  connection.hidden = !text;
  connection.textContent = text;
}

function write(name, text) {
  const element = field(name);
  if (element && element.textContent !== text) {
    element.textContent = text;
  }
}

function show(received) {
  const before = last?.status ?? job.dataset.status;
  last = received;
  if (received.finished_at) {
    stop();
    showEnd();
    return;
  }
  const progress = received.progress ?? {};
  if (received.status !== before) {
    say(received.status === "running" ? "The trainer has started the job." : `The job is ${received.status}.`);
  }
  const badge = field("status");
  badge.textContent = received.status;
  badge.className = `badge badge-${received.status}`;
  write("phase", received.status === "queued" ? "Waiting for the trainer" : (PHASES[progress.phase] ?? "Starting"));
  for (const name of ["rows", "epoch", "epochs", "fragments", "fragments_total", "loss"]) {
    write(name, number(progress[name]));
  }
  part("epoch").hidden = !progress.epochs;
  part("fragments").hidden = !progress.fragments_total;
  part("loss").hidden = progress.loss === null || progress.loss === undefined;
  showShare(progress);
  if (received.started_at && startedAt === null) {
    startedAt = performance.now();
  }
  if (progress.largest_learning_rate && !document.getElementById("rate").children.length) {
    replace(["rate"]); // drawn by the service, once
  }
  draw();
}

function showShare(progress) {
  const [done, total, noun] = progress.epochs
    ? [progress.epoch ?? 0, progress.epochs, "epoch"]
    : [progress.fragments ?? 0, progress.fragments_total ?? 0, "fragment"];
  part("share").hidden = !total;
  if (total) {
    field("share").max = total;
    field("share").value = done;
    write("share-words", `${noun} ${number(done)} of ${number(total)}`);
  }
}

// The page as it is now, from the service.
async function fetchPage() {
  const response = await fetch(job.dataset.page, { headers: { accept: "text/html" }, cache: "no-store" });
  if (response.redirected || response.status === 401 || response.status === 403) {
    throw new Error(SIGNED_OUT);
  }
  if (!response.ok) {
    throw new Error(String(response.status));
  }
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

// Replace elements by those of the page as it is now.
async function replace(ids) {
  try {
    const now = await fetchPage();
    for (const id of ids) {
      document.getElementById(id).replaceChildren(...now.getElementById(id).children);
    }
  } catch {
    // The next event, or a reload, tries again.
  }
}

async function showEnd(attempt = 0) {
  try {
    const now = await fetchPage();
    const next = now.getElementById("job");
    const focused = job.contains(document.activeElement);
    destroyPlot();
    job.replaceChildren(...next.children);
    job.dataset.status = next.dataset.status;
    document.title = `${last.status}: ${now.title}`;
    warn("");
    const version = last.status === "succeeded" ? ` Version ${last.version} is ready.` : "";
    say(`The job has ${last.status === "cancelled" ? "been cancelled" : last.status}.${version}`);
    if (focused) {
      job.querySelector("h1").focus();
    }
    prepare();
    draw();
  } catch (error) {
    if (error.message === SIGNED_OUT) {
      warn(`The job has ended. ${SIGNED_OUT}`);
      return;
    }
    warn("The job has ended. The service does not answer now. The page will show the result when it answers again.");
    setTimeout(() => showEnd(attempt + 1), RETRY[Math.min(attempt, RETRY.length - 1)]);
  }
}

// ---- Following

function follow() {
  if (ended || source) {
    return;
  }
  source = new EventSource(job.dataset.events);
  source.addEventListener("open", () => {
    if (lost) {
      say("Connected again.");
    }
    lost = 0;
    warn("");
  });
  source.addEventListener("job", (event) => show(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    if (ended) {
      return;
    }
    warn("The connection was lost. Trying again. The job continues.");
    if (source?.readyState === EventSource.CLOSED) {
      // The browser connects again by itself, unless there was an answer other than a stream.
      disconnect();
      setTimeout(lookAgain, RETRY[Math.min(lost, RETRY.length - 1)]);
      lost += 1;
    } else {
      lost = lost || 1;
    }
  });
}

// Find out why the service answered without a stream.
async function lookAgain() {
  try {
    const response = await fetch(job.dataset.page, { headers: { accept: "application/json" }, cache: "no-store" });
    if (response.status === 401 || response.status === 403) {
      warn(SIGNED_OUT);
      return;
    }
    if (response.status === 404) {
      warn("The record of this job was removed. The service keeps only the newest jobs.");
      return;
    }
    if (response.ok) {
      show(await response.json());
    }
  } catch {
    // The service does not answer yet.
  }
  follow();
}

function disconnect() {
  source?.close();
  source = null;
}

function stop() {
  ended = true;
  disconnect();
}

// ---- The loss curve

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function destroyPlot() {
  plot?.destroy();
  plot = null;
}

function isLog() {
  return document.getElementById("log").checked && last.loss_curve.some(([, loss]) => loss > 0);
}

function draw() {
  const curve = last?.loss_curve;
  if (!curve || !window.uPlot) {
    return;
  }
  const log = isLog();
  // uPlot's own logarithmic axis has no ticks for losses that grow by hundreds of powers of 10.
  const height = (loss) => (log ? (loss > 0 ? Math.log10(loss) : null) : loss);
  const data = [curve.map(([epoch]) => epoch), curve.map(([, loss]) => height(loss))];
  part("curve").hidden = false;
  part("switch").hidden = false;
  document.getElementById("drawn").hidden = true;
  const place = document.getElementById("plot");
  place.hidden = false;
  place.setAttribute("role", "img");
  const [first, end] = [curve[0], curve[curve.length - 1]];
  const words = `The loss goes from ${number(first[1])} at epoch ${first[0]} to ${number(end[1])} at epoch ${end[0]}.`;
  place.setAttribute("aria-label", `Loss curve. ${words}`);
  if (plot) {
    plot.setData(data);
    return;
  }
  const line = color("--series-1");
  const axis = (label) => ({
    label,
    stroke: color("--muted"),
    grid: { stroke: color("--border"), width: 1 },
    ticks: { stroke: color("--border"), width: 1 },
    font: "12px system-ui, sans-serif",
    labelFont: "12px system-ui, sans-serif",
    size: label === "epoch" ? 36 : 76,
    labelSize: 20,
    values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : number(tick))),
  });
  const options = {
    width: place.clientWidth,
    height: 320,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false } },
    scales: {
      x: { time: false },
      y: log ? { range: (_, low, high) => [low - 0.08, high + 0.08] } : { range: (_, low, high) => [Math.min(0, low), high + 0.05 * Math.abs(high) || 1] },
    },
    axes: [
      axis("epoch"),
      log
        ? {
            ...axis("loss, logarithmic"),
            splits: (_, __, low, high) => decades(low, high),
            values: (_, ticks) => ticks.map((tick) => number(Number((10 ** tick).toPrecision(3)))),
          }
        : axis("loss"),
    ],
    series: [{}, { stroke: line, width: 2.25, points: { show: curve.length < 30, fill: line, size: 6 } }],
    hooks: {
      setCursor: [
        (chart) => {
          const at = chart.cursor.idx;
          const known = at !== null && at !== undefined && chart.data[1][at] !== null;
          document.getElementById("readout").textContent = known
            ? `Epoch ${number(chart.data[0][at])}: loss ${number(last.loss_curve[at][1])}.`
            : "";
        },
      ],
    },
  };
  plot = new uPlot(options, data, place);
}

// Exponents of powers of 10 between two exponents, about 8; with those of 2 and 5 times these if there are few.
function decades(low, high) {
  const [first, end] = [Math.floor(low), Math.ceil(high)];
  const every = Math.ceil((end - first + 1) / 8);
  const factors = end - first > 3 ? [1] : [1, 2, 5];
  const ticks = [];
  for (let exponent = first; exponent <= end; exponent += every) {
    ticks.push(...factors.map((factor) => exponent + Math.log10(factor)));
  }
  return ticks.filter((tick) => tick >= low && tick <= high);
}

function redraw() {
  destroyPlot();
  draw();
}

// ---- Parts of the page that the service may have replaced

function prepare() {
  document.getElementById("log").addEventListener("change", redraw);
  document.getElementById("curve-numbers").addEventListener("toggle", (event) => {
    if (event.target.open && !ended) {
      replaceNumbers();
    }
  });
  new ResizeObserver(() => {
    const place = document.getElementById("plot");
    if (plot && place.clientWidth && plot.width !== place.clientWidth) {
      plot.setSize({ width: place.clientWidth, height: 320 });
    }
  }).observe(document.getElementById("plot"));
}

async function replaceNumbers() {
  const details = document.getElementById("curve-numbers");
  try {
    const now = (await fetchPage()).getElementById("curve-numbers");
    const summary = details.querySelector("summary");
    details.replaceChildren(summary, ...[...now.children].slice(1));
  } catch {
    // Closing and opening the part tries again.
  }
}

// The time goes on between two events. The clock of this machine may differ from that of the service.
setInterval(() => {
  if (startedAt !== null && !ended) {
    write("time", elapsed((performance.now() - startedAt) / 1000));
  }
}, 1000);

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

// Browsers open only about six connections to a service, so pages that nobody sees give theirs back.
document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : follow()));
addEventListener("pagehide", disconnect);
addEventListener("pageshow", follow);

prepare();
if (ended) {
  // The interactive curve of a job that had ended before the page was opened.
  if (!part("curve").hidden) {
    fetch(job.dataset.page, { headers: { accept: "application/json" } })
      .then((response) => (response.ok ? response.json() : Promise.reject(response.status)))
      .then((received) => {
        last = received;
        draw();
      })
      .catch(() => {}); // the drawing of the service stays
  }
} else if (!document.hidden) {
  follow();
}
