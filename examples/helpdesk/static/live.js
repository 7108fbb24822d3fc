// Shows what has changed without a reload. Without scripts the page is what it is, and the next click has what is new.

const main = document.querySelector("main[data-live]");

// Whoever logs out here ends the feed before the answer has come; a reload then would undo the way to the page that follows.
let left = -Infinity;
addEventListener("beforeunload", () => (left = performance.now()));
const leaving = () => performance.now() - left < 5000;

/** Puts in what is new; what somebody is typing stays. */
async function refresh() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  // Logged out, or no longer for us: the whole page says so.
  if (!answer.ok) return setTimeout(() => location.reload(), leaving() ? 5000 : 0);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of main.querySelectorAll("[data-fresh]")) {
    const fresh = page.getElementById(part.id);
    if (fresh && fresh.innerHTML !== part.innerHTML) part.replaceChildren(...fresh.childNodes);
  }
}

if (main) {
  const { live, key } = main.dataset;
  const feed = new EventSource(`/subscribe?event=${live}${key ? `&key=${key}` : ""}`);
  // One at a time, and once more for what comes meanwhile.
  let running = null;
  let again = false;
  const run = async () => {
    do {
      again = false;
      await refresh().catch(() => {});
    } while (again);
    running = null;
  };
  const changed = () => {
    again = true;
    running ??= run();
  };
  feed.addEventListener(live, changed);
  feed.addEventListener("edri.missed", changed);
  feed.addEventListener("open", () => {
    main.dataset.state = "live";
    changed();
  });
  // The node is away, or we are logged out.
  feed.addEventListener("error", () => {
    main.dataset.state = "away";
    changed();
  });
}
