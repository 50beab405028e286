// Three scores, of which the first is that of the true digit, and how hard each of three losses pushes them up or down.
// `data` holds the scores to begin with.
document.body.innerHTML = `
  <style>
    table { border-collapse: collapse; margin-top: 10px; font-variant-numeric: tabular-nums; }
    th, td { padding: 1px 10px 1px 0; text-align: right; font-weight: normal; }
    th:first-child { text-align: left; width: 10em; }
    .bar { display: inline-block; position: relative; width: 60px; height: 12px; background: #eee; vertical-align: middle; }
    .bar i { position: absolute; top: 0; height: 12px; background: #1f77b4; }
    .bar i.down { background: #d62728; }
  </style>
  ${["true digit", "a wrong one", "another"].map((name, i) => `<label><span>${name}</span>
    <input type="range" min="-10" max="10" step="0.5" value="${data.scores[i]}"> <output></output></label>`).join("")}
  <table></table>
  <div id="words" aria-live="polite"></div>`;
const inputs = [...document.querySelectorAll("input")], WISHES = [1, 0, 0];
const sum = values => values.reduce((total, value) => total + value, 0);

function softmax(scores) {
  const powers = scores.map(score => Math.exp(score - Math.max(...scores)));
  return powers.map(power => power/sum(powers));
}

// The pushes: minus the slope of the loss at each score.
const LOSSES = {
  "sigmoid + MSE": scores => scores.map((score, i) => {
    const value = 1/(1 + Math.exp(-score));
    return 2/3*(WISHES[i] - value)*value*(1 - value);
  }),
  "softmax + MSE": scores => {
    const shares = softmax(scores), errors = shares.map((share, j) => share - WISHES[j]);
    const mean = sum(shares.map((share, j) => share*errors[j]));
    return shares.map((share, i) => -2/3*share*(errors[i] - mean));
  },
  "cross-entropy": scores => softmax(scores).map((share, i) => WISHES[i] - share),
};

function bar(value) {  // from -1 to 1
  const width = Math.abs(value)*30;
  return `<span class="bar"><i class="${value < 0 ? "down" : ""}" style="left: ${value < 0 ? 30 - width : 30}px; width: ${width}px"></i></span>`;
}

function row(name, values, shown) {
  return `<tr><th>${name}</th>${values.map(value => `<td>${shown(value)}${value.toFixed(3)}</td>`).join("")}</tr>`;
}

function draw() {
  const scores = inputs.map(input => Number(input.value)), plain = () => "", push = value => `${bar(value)} `;
  inputs.forEach((input, i) => { input.parentNode.querySelector("output").textContent = scores[i].toFixed(1); });
  document.querySelector("table").innerHTML = "<tr><th></th><td>true</td><td>wrong</td><td>another</td></tr>" +
    row("sigmoid", scores.map(score => 1/(1 + Math.exp(-score))), plain) + row("softmax", softmax(scores), plain) +
    "<tr><th><b>pushes</b></th></tr>" +
    Object.entries(LOSSES).map(([name, pushes]) => row(name, pushes(scores), push)).join("");
  const [share] = softmax(scores);
  document.querySelector("#words").textContent =
    `The model gives the true digit a share of ${(100*share).toFixed(share < 0.01 ? 3 : 0)} %. Blue pushes up, red down.`;
}
inputs.forEach(input => input.addEventListener("input", draw));
draw();
