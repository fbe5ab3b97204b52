() => {
  // On a narrow screen, the answer is below the inputs.
  const answer = document.getElementById("answer");
  if (answer && answer.getBoundingClientRect().top > 0.6 * window.innerHeight) answer.scrollIntoView();
}
