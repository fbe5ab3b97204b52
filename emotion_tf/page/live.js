// Sends frames of the camera one after the other, and draws the answers beside their history.
const part = (name) => element.querySelector(name);
const [video, boxes, history, bars, state, said] =
  [".camera video", ".boxes", ".history", ".bars", ".state", ".said"].map(part);
const SECONDS = 60, WIDTH = 640, LEAST_PAUSE = 100, LANE = 18;
const visitor = Math.random().toString(36).slice(2) + Date.now().toString(36);
const frame = document.createElement("canvas");
let stream = null, previous = [], answers = [], timer = 0, last = "";
const menu = (name) => document.querySelector(`input[aria-label="${name}"]`)?.value ?? "";
const colour = (name) => getComputedStyle(element).getPropertyValue(name);

function say(text) {  // only changes, which screen readers announce
  if (text !== last) state.textContent = last = text;
  state.classList.toggle("notice", !bars.rows.length || bars.hidden);
}

async function start() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: WIDTH, height: 480 }, audio: false });
  } catch (error) {
    return say(`The camera cannot be used: ${error.message}.`);
  }
  video.srcObject = stream;
  await video.play();
  part(".start").textContent = "Stop the camera";
  step();
}

function stop(reason) {
  clearTimeout(timer);
  stream?.getTracks().forEach((track) => track.stop());
  stream = video.srcObject = null;
  boxes.width = boxes.width;
  part(".rate").textContent = "";
  part(".start").textContent = "Start the camera";
  say(reason);
}

async function step() {
  if (!stream) return;
  if (!element.isConnected) return stop("");
  const began = performance.now();
  frame.width = Math.min(WIDTH, video.videoWidth);
  frame.height = Math.round((frame.width * video.videoHeight) / video.videoWidth);
  frame.getContext("2d").drawImage(video, 0, 0, frame.width, frame.height);
  const precision = Number(/\d+(?= %)/.exec(menu("When to answer"))?.[0] ?? 0) / 100;
  const question = {
    visitor, precision, run: menu("Run"), text: said.value, context: previous,
    frame: frame.toDataURL("image/jpeg", 0.85).split(",")[1],
  };
  try {
    const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(question) };
    const response = await fetch("live", options);
    if (!response.ok) throw new Error(String(response.status));
    const answer = await response.json();
    if (stream) show(answer, performance.now());
  } catch (error) {
    if (stream) stop(`The page does not answer (${error.message}). Start the camera again.`);
    return;
  }
  timer = setTimeout(step, Math.max(0, LEAST_PAUSE - (performance.now() - began)));
}

function show(answer, now) {
  drawBoxes(answer.boxes);
  answers = answers.filter((row) => now - row.time < SECONDS * 1000);
  if (answer.notice) {
    say(answer.notice);
  } else {
    answers.push({ time: now, ...answer });
    const best = answer.labels[answer.predicted];
    drawBars(answer);
    say(answer.sure ? best : `Not sure (${best})`);
  }
  const recent = answers.filter((row) => now - row.time < 5000);
  part(".rate").textContent = recent.length > 1 ? `${(recent.length / 5).toFixed(1)} answers a second` : "";
  drawHistory(now);
}

function drawBoxes(shares) {
  boxes.width = video.clientWidth;
  boxes.height = video.clientHeight;
  const context = boxes.getContext("2d");
  shares.forEach(([left, top, width, height], n) => {
    context.strokeStyle = n ? "#ff9d00" : "#2ee66b";
    context.lineWidth = n ? 2 : 3;
    context.strokeRect(left * boxes.width, top * boxes.height, width * boxes.width, height * boxes.height);
  });
}

function drawBars({ labels, probabilities, predicted }) {
  if (bars.rows.length !== labels.length || labels.some((label, n) => bars.rows[n].cells[0].textContent !== label)) {
    answers = answers.slice(-1);  // another run
    bars.replaceChildren(...labels.map((label) => {
      const row = document.createElement("tr");
      row.innerHTML = '<th scope="row"></th><td class="bar" aria-hidden="true"><i></i></td><td class="number"></td>';
      row.cells[0].textContent = label;
      return row;
    }));
    for (const hidden of element.querySelectorAll("[hidden]")) hidden.hidden = false;
  }
  probabilities.forEach((p, n) => {
    const [, bar, number] = bars.rows[n].cells;
    bar.firstChild.style.width = `${100 * p}%`;
    bar.firstChild.className = n === predicted ? "best" : "other";
    number.textContent = `${(100 * p).toFixed(2)} %`;
  });
}

function drawHistory(now) {
  if (!answers.length) return;
  const { labels } = answers.at(-1), left = 80;
  history.width = element.clientWidth;
  history.height = LANE * labels.length;
  const context = history.getContext("2d"), scale = (history.width - left) / (SECONDS * 1000);
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "middle";
  const x = (time) => Math.round(history.width - (now - time) * scale);  // whole pixels: neighbours must not overlap
  labels.forEach((label, lane) => {
    context.globalAlpha = 1;
    context.fillStyle = colour("--body-text-color");
    context.fillText(label, 4, LANE * (lane + 0.5), left - 8);
    context.fillStyle = colour(`--class-${lane % 8}`);
    answers.forEach((row, n) => {
      context.globalAlpha = row.probabilities[lane];
      const end = Math.min(answers[n + 1]?.time ?? now, row.time + 1000);
      context.fillRect(x(row.time), LANE * lane + 1, x(end) - x(row.time), LANE - 2);
    });
  });
}

part(".start").addEventListener("click", () => (stream ? stop("The camera is off.") : start()));
said.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !said.value.trim()) return;
  previous = [...previous, said.value.trim()].slice(-8);
  part(".previous").textContent = `Before: ${previous.join(" / ")}`;
  said.value = "";
});
