"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const runs = JSON.parse(byId("runs").textContent);
  const [tip, panel, list] = [byId("tip"), byId("panel"), byId("panel-runs")];
  // The page's own tips replace those of the browser.
  document.querySelectorAll("svg .hit > title").forEach((title) => title.remove());
  const hit = (event) => (event.target.closest ? event.target.closest(".hit") : null);

  const place = (x, y) => {
    const { offsetWidth: width, offsetHeight: height } = tip;
    tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - width - 8))}px`;
    tip.style.top = `${y + height + 24 > innerHeight ? y - height - 12 : y + 16}px`;
  };
  const show = (target, x, y) => {
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    place(x, y);
  };
  document.addEventListener("pointermove", (event) => {
    const target = hit(event);
    if (target) show(target, event.clientX, event.clientY);
    else tip.hidden = true;
  });
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  const add = (parent, tag, text) => {
    const element = document.createElement(tag);
    element.textContent = text;
    parent.append(element);
    return element;
  };
  const open = (target) => {
    const ids = [...new Set(target.dataset.runs.split(" ").filter(Boolean).map(Number))];
    if (!ids.length) return;
    byId("panel-title").textContent = ids.length === 1 ? "1 run" : `${ids.length} runs`;
    list.replaceChildren();
    for (const run of ids.map((id) => runs[id])) {
      const card = add(list, "article", "");
      add(card, "h3", run.name);
      add(card, "p", [run.kind, run.result].filter(Boolean).join(" · "));
      if (run.directory) add(card, "p", run.directory);
      if (run.id) add(card, "p", `digest ${run.id}`);
      if (run.command) add(card, "pre", run.command);
    }
    tip.hidden = true;
    panel.showModal();
  };
  document.addEventListener("click", (event) => {
    const target = hit(event);
    if (target) open(target);
    else if (event.target === panel) panel.close();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.matches(".hit")) open(event.target);
  });
  byId("close").addEventListener("click", () => panel.close());
  // A list of hundreds of runs stays closed on paper, unless its reader opens it.
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((details) => {
    details.open ||= details.querySelectorAll("tr").length < 100;
  }));
})();
