// Shows the utterance and the face of the selected moment, and hides the others.
element.addEventListener("click", (event) => {
  const moment = event.target.closest("[data-moment]");
  if (!moment) return;
  for (const button of element.querySelectorAll("[data-moment]")) {
    button.setAttribute("aria-pressed", String(button === moment));
  }
  for (const details of element.querySelectorAll("[data-details]")) {
    details.hidden = details.dataset.details !== moment.dataset.moment;
  }
});
// The arrow keys select the previous and the next moment.
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
