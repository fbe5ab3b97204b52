// A moment of a film's timeline was chosen: its utterance and face are shown, the others hidden.
element.addEventListener("click", (event) => {
  const moment = event.target.closest("[data-moment]");
  if (!moment) return;
  for (const one of element.querySelectorAll("[data-moment]")) {
    one.setAttribute("aria-pressed", String(one === moment));
  }
  for (const said of element.querySelectorAll("[data-said]")) {
    said.hidden = said.dataset.said !== moment.dataset.moment;
  }
});
// Left and right go from moment to moment.
element.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const moment = event.target.closest("[data-moment]");
  if (!step || !moment) return;
  const next = element.querySelector(`[data-moment="${Number(moment.dataset.moment) + step}"]`);
  if (next) {
    event.preventDefault();
    next.focus();
    next.click();
  }
});
