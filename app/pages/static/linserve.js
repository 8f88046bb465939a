// For all pages: buttons that copy, which stay hidden without scripts, and forms that are sent once.
"use strict";

// <button data-copy="ID" hidden>Copy</button> copies the text of the element with that id. Scripts that fetch a part of
// a page call this function for it.
function showCopyButtons(root) {
  for (const button of root.querySelectorAll("button[data-copy][hidden]")) {
    button.hidden = false;
  }
}

// Copy the text, or select the element that shows it. The button says which.
async function copyText(button, text, element) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(element); // without HTTPS, browsers offer no clipboard
    button.textContent = "Selected";
  }
  announce(button.textContent);
  setTimeout(() => (button.textContent = label), 2000);
}

// Screen readers read `text` out.
function announce(text) {
  let region = document.getElementById("announcement");
  if (!region) {
    region = document.createElement("p");
    region.id = "announcement";
    region.className = "visually-hidden";
    region.setAttribute("role", "status");
    document.body.append(region);
  }
  region.textContent = text;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("button[data-copy]");
  if (button) {
    const source = document.getElementById(button.dataset.copy);
    copyText(button, source.textContent.trim(), source);
  }
});
showCopyButtons(document);

// A form with `data-once` ignores clicks on its button for ONCE_MS after it was sent, because each would repeat the
// request. It can be sent at once if the person comes back to the page.
const ONCE_MS = 10_000;
let sentAt = -Infinity;
document.addEventListener("submit", (event) => {
  if (event.target.dataset.once === undefined) {
    return;
  }
  if (event.timeStamp - sentAt < ONCE_MS) {
    event.preventDefault();
  } else {
    sentAt = event.timeStamp;
  }
});
window.addEventListener("pageshow", () => (sentAt = -Infinity));
