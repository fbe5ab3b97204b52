() => {
  // On a narrow screen the answer lies below what was asked.
  const answer = document.getElementById("answer");
  if (answer && answer.getBoundingClientRect().top > 0.6 * window.innerHeight) answer.scrollIntoView();
}
