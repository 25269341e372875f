// Fetches the page again when the server says that there is something new; what was unfolded stays so.
let busy = false, again = false;
async function renew() {
  if (busy) { again = true; return; }
  busy = true;
  try {
    const text = await (await fetch("./")).text();
    const fresh = new DOMParser().parseFromString(text, "text/html").querySelector("main");
    const open = new Set([...document.querySelectorAll("details[open] > summary")].map(s => s.textContent));
    fresh.querySelectorAll("details").forEach(d => { d.open = open.has(d.querySelector("summary").textContent); });
    document.querySelector("main").replaceWith(fresh);
  } catch { /* the run has ended: what is shown is its last state */ }
  busy = false;
  if (again) { again = false; setTimeout(renew, 1000); }
}
const news = new EventSource("events");
news.onmessage = renew;
news.addEventListener("end", () => news.close());
