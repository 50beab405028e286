// Two units that bend, added up: the first is fixed, the second is moved with two sliders until the sum passes through
// the three dots, which no straight line can do. `data` holds the weight and bias of both units and the wanted values.
document.body.innerHTML = `
  <style>
    canvas { width: 100%; max-width: 552px; aspect-ratio: 552/260; margin-top: 6px; }
  </style>
  <label><span>weight of unit 2</span> <input type="range" min="-12" max="12" step="0.5" value="${data.second[0]}"> <output></output></label>
  <label><span>bias of unit 2</span> <input type="range" min="-20" max="20" step="0.5" value="${data.second[1]}"> <output></output></label>
  <canvas role="img" aria-label="unit 1, unit 2, and unit 1 minus unit 2 against the ink of two pixels"></canvas>
  <div id="words" aria-live="polite"></div>`;
const inputs = [...document.querySelectorAll("input")], canvas = document.querySelector("canvas");
const WIDTH = 552, HEIGHT = 260, MARGIN = 34;
const sigmoid = value => 1/(1 + Math.exp(-value));
const unit = ([weight, bias], ink) => sigmoid(weight*ink + bias);

function draw() {
  const second = inputs.map(input => Number(input.value)), pen = canvas.getContext("2d");
  const scale = window.devicePixelRatio || 1;
  canvas.width = WIDTH*scale;
  canvas.height = HEIGHT*scale;
  pen.scale(scale, scale);
  pen.font = "13px sans-serif";
  pen.textAlign = "center";
  const place = (ink, value) => [MARGIN + (WIDTH - MARGIN - 8)*(ink + 0.25)/2.5, 8 + (HEIGHT - MARGIN - 8)*(1.3 - value)/2.6];
  for (const ink of [0, 1, 2]) pen.fillText(ink, place(ink, 0)[0], HEIGHT - 16);
  for (const value of [-1, 0, 1]) pen.fillText(value, 16, place(0, value)[1] + 4);
  pen.fillText("ink of the two pixels", WIDTH/2, HEIGHT - 2);
  const curve = (height, colour, width) => {
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.beginPath();
    for (let ink = -0.25; ink <= 2.25; ink += 0.01) pen.lineTo(...place(ink, height(ink)));
    pen.stroke();
  };
  const total = ink => unit(data.first, ink) - unit(second, ink);
  curve(() => 0, "#ccc", 1);
  curve(ink => unit(data.first, ink), "#1f77b4", 1.5);
  curve(ink => -unit(second, ink), "#2ca02c", 1.5);
  curve(total, "#ff7f0e", 3);
  for (const [ink, wanted] of data.wanted) {
    pen.fillStyle = "#222";
    pen.beginPath();
    pen.arc(...place(ink, wanted), 5, 0, 7);
    pen.fill();
  }
  inputs.forEach((input, i) => { input.parentNode.querySelector("output").textContent = second[i].toFixed(1); });
  const miss = Math.max(...data.wanted.map(([ink, wanted]) => Math.abs(total(ink) - wanted)));
  document.querySelector("#words").textContent = "Blue: unit 1. Green: minus unit 2. Orange: their sum. " +
    (miss < 0.05 ? "It passes through all three dots!" : `It misses a dot by ${miss.toFixed(2)}.`);
}
inputs.forEach(input => input.addEventListener("input", draw));
draw();
