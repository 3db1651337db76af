// Keeps the page fresh without reloading it. Without scripts the page reloads itself instead.
const lost = document.getElementById("lost");

async function refresh() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(4000) });
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of ["header", "main"]) {
      document.querySelector(part).replaceWith(page.querySelector(part));
    }
    lost.hidden = true;
    document.body.classList.remove("old");
  } catch {
    lost.hidden = false;
    document.body.classList.add("old");
  }
}

setInterval(refresh, 2000);
document.addEventListener("visibilitychange", refresh);
