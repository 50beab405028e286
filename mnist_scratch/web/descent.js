// Gradient descent for the two dials of a line: a slider for the learning rate, the path on the map of the loss, and
// the line it ends at. `data` holds the points x, y, the start [w, b], the number of steps, and the ranges of the map.
const {x, y, steps, w_range, b_range} = data;
let start = data.start;

document.body.innerHTML = `
  <style>
    #pictures { display: flex; gap: 12px; margin-top: 6px; }
    canvas { width: calc(50% - 6px); max-width: 270px; aspect-ratio: 1; touch-action: manipulation; }
    #map { cursor: crosshair; }
  </style>
  <label>learning rate <input type="range" min="0.005" max="0.32" step="0.005" value="${data.rate}"> <output></output></label>
  <div id="pictures">
    <canvas id="map" role="img" aria-label="map of the loss with the path of the descent"></canvas>
    <canvas id="line" role="img" aria-label="the points, and the line at the end of the path"></canvas>
  </div>
  <div id="words" aria-live="polite"></div>
  <div>A click on the map begins the descent there.</div>`;
const find = selector => document.querySelector(selector);

const SIZE = 270, MARGIN = 34;
const mean = (values) => values.reduce((sum, value) => sum + value, 0)/values.length;
const loss = ([w, b]) => mean(x.map((value, i) => (w*value + b - y[i])**2));
function gradient([w, b]) {
  const errors = x.map((value, i) => w*value + b - y[i]);
  return [2*mean(errors.map((error, i) => error*x[i])), 2*mean(errors)];
}

function descend(rate) {
  const path = [start];
  for (let step = 0; step < steps; step++) {
    const here = path[step], slope = gradient(here);
    path.push([here[0] - rate*slope[0], here[1] - rate*slope[1]]);
  }
  return path;
}

// Drawing: a square with axes; `place` turns coordinates into pixels.
function square(canvas, [left, right], [bottom, top], xlabel, ylabel) {
  const scale = window.devicePixelRatio || 1, pen = canvas.getContext("2d"), inner = SIZE - MARGIN - 4;
  canvas.width = canvas.height = SIZE*scale;
  pen.scale(scale, scale);
  pen.font = "13px sans-serif";
  const place = ([a, b]) => [MARGIN + inner*(a - left)/(right - left), 4 + inner*(top - b)/(top - bottom)];
  pen.fillStyle = "#222";
  pen.textAlign = "center";
  for (let tick = Math.ceil(left); tick <= right; tick++) pen.fillText(tick, place([tick, bottom])[0], SIZE - 16);
  for (let tick = Math.ceil(bottom); tick <= top; tick++) pen.fillText(tick, MARGIN - 12, place([left, tick])[1] + 4);
  pen.fillText(xlabel, MARGIN + inner/2, SIZE - 2);
  pen.fillText(ylabel, 7, 4 + inner/2);
  pen.strokeRect(MARGIN, 4, inner, inner);
  pen.beginPath();
  pen.rect(MARGIN, 4, inner, inner);
  pen.clip();
  return {pen, place, inner};
}

function trace({pen, place}, points, colour, dots) {
  const visible = points.map(place).map(([left, top]) => [Math.max(-1e5, Math.min(1e5, left)), Math.max(-1e5, Math.min(1e5, top))]);
  pen.strokeStyle = pen.fillStyle = colour;
  pen.lineWidth = 2;
  pen.beginPath();
  visible.forEach(([left, top]) => pen.lineTo(left, top));
  if (!dots || visible.length > 1) pen.stroke();
  if (dots) for (const [left, top] of visible) { pen.beginPath(); pen.arc(left, top, 3.5, 0, 7); pen.fill(); }
}

function draw() {
  const rate = Number(find("input").value), path = descend(rate), end = path[steps], map = find("#map");
  const ground = square(map, w_range, b_range, "w", "b"), {pen, place, inner} = ground;
  for (let row = 0; row < inner; row += 2) for (let column = 0; column < inner; column += 2) {
    const w = w_range[0] + (w_range[1] - w_range[0])*column/inner, b = b_range[1] - (b_range[1] - b_range[0])*row/inner;
    const level = Math.min(1, Math.floor(Math.sqrt(loss([w, b]))*4)/16);  // in steps, so that contours can be seen
    pen.fillStyle = `rgb(${20 + 225*level}, ${60 + 188*level}, ${115 + 137*level})`;
    pen.fillRect(MARGIN + column, 4 + row, 2, 2);
  }
  trace(ground, path, "#ff7f0e", true);
  trace(ground, [start], "#d62728", true);

  const picture = square(find("#line"), [-2, 4], [-2, 5], "x", "y");
  trace(picture, [[-2, end[1] - 2*end[0]], [4, end[1] + 4*end[0]]], "#ff7f0e", false);
  for (let i = 0; i < x.length; i++) trace(picture, [[x[i], y[i]]], "#222", true);

  const last = loss(end), earlier = loss(path[Math.floor(steps/2)]);
  const turns = path.slice(2).filter((there, i) => {
    const before = [path[i + 1][0] - path[i][0], path[i + 1][1] - path[i][1]];
    return before[0]*(there[0] - path[i + 1][0]) + before[1]*(there[1] - path[i + 1][1]) < -1e-9;
  }).length;
  const how = last > 1.01*earlier ? "it flies away" : turns > 3 ? "it jumps from side to side" : last > 0.2 ? "it creeps" : "it glides down";
  find("output").textContent = rate.toFixed(3);
  find("#words").textContent = `${how}: after ${steps} steps w = ${number(end[0])}, b = ${number(end[1])}, loss ${number(last)}`;
}
const number = value => Math.abs(value) < 1000 ? value.toFixed(3) : value.toExponential(1);

find("input").addEventListener("input", draw);
find("#map").addEventListener("click", event => {
  const box = find("#map").getBoundingClientRect(), inner = SIZE - MARGIN - 4;
  const across = ((event.clientX - box.left)*SIZE/box.width - MARGIN)/inner;
  const down = ((event.clientY - box.top)*SIZE/box.height - 4)/inner;
  start = [w_range[0] + across*(w_range[1] - w_range[0]), b_range[1] - down*(b_range[1] - b_range[0])];
  draw();
});
draw();
