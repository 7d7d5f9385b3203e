// Keeps the page as it is now, while somebody looks at it: it asks for the page again and takes over the parts
// that have changed. Elements stay where only what is in them changes, so that readers of the screen hear what
// is new, and neither the focus nor what is unfolded is lost.
"use strict";
(() => {
  const INTERVAL_MS = 3000;
  const PATIENCE_MS = 20000;
  const lost = document.getElementById("lost");
  const seen = document.getElementById("seen");
  const shown = new Map();
  let version = null;
  let seenAt = Date.now();
  let timer = null;
  let request = null;

  const parts = (page) => page.querySelectorAll("[data-part]");

  const span = (seconds) => {
    const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
    const [name, size] = units.find(([, one]) => seconds >= one) ?? units[3];
    const count = Math.max(1, Math.floor(seconds / size));
    return `${count} ${name}${count === 1 ? "" : "s"}`;
  };

  const tellTimes = () => {
    for (const time of document.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      const seconds = (Date.now() - at) / 1000;
      const text = "since" in time.dataset ? `for ${span(seconds)}` : seconds < 10 ? "just now" : `${span(seconds)} ago`;
      if (time.textContent !== text) {
        time.textContent = text;
        time.title = at.toLocaleString();
      }
    }
  };

  const takeOver = (page) => {
    for (const fresh of parts(page)) {
      const html = fresh.outerHTML;
      const part = document.getElementById(fresh.id);
      if (part === null || shown.get(fresh.id) === html) continue;
      shown.set(fresh.id, html);
      const open = new Set([...part.querySelectorAll("details[open]")].map((one) => one.dataset.key));
      for (const one of fresh.querySelectorAll("details")) one.open = open.has(one.dataset.key);
      const focused = part.contains(document.activeElement) && document.activeElement.closest("details");
      const key = focused ? focused.dataset.key : null;
      for (const name of ["class", "aria-labelledby"]) {
        if (fresh.hasAttribute(name)) part.setAttribute(name, fresh.getAttribute(name));
        else part.removeAttribute(name);
      }
      part.hidden = fresh.hidden;
      part.replaceChildren(...fresh.childNodes);
      if (key !== null) {
        [...part.querySelectorAll("details")].find((one) => one.dataset.key === key)?.querySelector("summary").focus();
      }
    }
    document.title = page.title;
  };

  const answered = () => {
    seenAt = Date.now();
    lost.hidden = true;
  };

  const failed = () => {
    seen.dateTime = new Date(seenAt).toISOString();
    lost.hidden = false;
  };

  const ask = () => {
    timer = null;
    if (request !== null || document.visibilityState === "hidden") return;
    request = new XMLHttpRequest();
    request.open("GET", "/");
    request.responseType = "document";
    // Else an answer without content (304) is taken for XML that is broken, of which a document is made, too.
    request.overrideMimeType("text/html");
    request.timeout = PATIENCE_MS;
    if (version !== null) request.setRequestHeader("If-None-Match", version);
    request.onloadend = () => {
      const { status, response } = request;
      if (status === 200 && response !== null) {
        version = request.getResponseHeader("ETag");
        takeOver(response);
        answered();
      } else if (status === 304) answered();
      else failed();
      request = null;
      tellTimes();
      again();
    };
    request.send();
  };

  const again = () => {
    if (timer === null && document.visibilityState !== "hidden") timer = setTimeout(ask, INTERVAL_MS);
  };

  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    timer = null;
    ask();
  });
  for (const part of parts(document)) shown.set(part.id, part.outerHTML);
  tellTimes();
  again();
})();
