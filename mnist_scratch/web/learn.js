// A two-layer net that learns while one looks, by the engine of notebook 09. `data` holds digits of 8 by 8 pixels, each
// a text of 64 signs from 0 (paper) to g (ink), and their labels; the last fifth of them is held out.
const SIDE = 8, UNITS = 16, BATCH = 20;
const n = data.labels.length, nLearn = Math.floor(0.8*n);
const pixels = data.digits.map(text => Float32Array.from(text, sign => parseInt(sign, 17)/16));
document.body.innerHTML = `
  <style>
    #buttons { margin: 6px 0; } #units { display: grid; grid-template-columns: repeat(8, 1fr); gap: 4px; max-width: 420px; }
    #units canvas { width: 100%; image-rendering: pixelated; border: 1px solid #ccc; } #curves { width: 100%; max-width: 552px; }
  </style>
  <label><span>learning rate</span><input id="rate" type="range" min="-7" max="3" step="1" value="-1"><output></output></label>
  <div id="buttons"><button id="learn">Learn</button><button id="again">Start again</button></div>
  <div id="words"></div>
  <canvas id="curves" width="552" height="150" role="img" aria-label="the loss of the digits that it learns from, and of the others, over the epochs"></canvas>
  <div id="units" role="img" aria-label="the weights of the 16 hidden units as pictures; red positive, blue negative"></div>`;
const find = selector => document.querySelector(selector), rate = () => 2**Number(find("#rate").value);
let parameters, courses, seed, running = false;

function random() {  // the same numbers each time (mulberry32)
  seed = (seed + 0x6D2B79F5) | 0;
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0)/2**32;
}
function normal(count, deviation) {
  return Array.from({length: count}, () => deviation*Math.sqrt(-2*Math.log(1 - random()))*Math.cos(2*Math.PI*random()));
}
function layer(inputs, outputs) {
  return [engine.tensor(normal(inputs*outputs, 1/Math.sqrt(inputs)), [outputs, inputs], true),
          engine.tensor(new Float32Array(outputs), [outputs], true)];
}
function lossOf(places) {
  const images = new Float32Array(SIDE*SIDE*places.length);
  places.forEach((place, row) => images.set(pixels[place], SIDE*SIDE*row));
  const logits = engine.twoLayer(parameters, engine.tensor(images, [places.length, SIDE*SIDE]));
  return [engine.crossEntropy(logits, places.map(place => data.labels[place])), logits.data];
}
const places = (from, to) => Array.from({length: to - from}, (_, i) => from + i);

function start() {
  seed = 1;
  courses = [[], []];
  parameters = [...layer(SIDE*SIDE, UNITS), ...layer(UNITS, 10)];
  draw();
}
function epoch() {
  const order = places(0, nLearn).map(place => [random(), place]).sort(([a], [b]) => a - b).map(([, place]) => place);
  for (let i = 0; i < nLearn; i += BATCH) {
    lossOf(order.slice(i, i + BATCH))[0].backward();
    engine.step(parameters, rate());
  }
}
function line(pen, losses, colour, top) {
  pen.strokeStyle = colour;
  pen.beginPath();
  losses.forEach((loss, i) => pen.lineTo(10 + 532*i/Math.max(60, losses.length), 140 - 130*Math.min(1, loss/top)));
  pen.stroke();
}
function draw() {
  const held = places(nLearn, n), [loss, logits] = lossOf(held);
  courses[0].push(lossOf(places(0, nLearn))[0].data[0]);
  courses[1].push(loss.data[0]);
  const right = held.filter((place, row) => {
    const own = [...logits.slice(10*row, 10*row + 10)];
    return own.indexOf(Math.max(...own)) === data.labels[place];
  }).length;
  find("output").textContent = rate();
  find("#words").textContent = `Epoch ${courses[0].length - 1}: it reads ${right} of the ${held.length} digits that it does not learn from. ` +
    `Loss ${courses[0].at(-1).toFixed(3)} (blue), of those others ${courses[1].at(-1).toFixed(3)} (orange).`;
  const pen = find("#curves").getContext("2d"), top = Math.max(courses[0][0], courses[1][0], 0.1);
  pen.clearRect(0, 0, 552, 150);
  pen.lineWidth = 2;
  line(pen, courses[0], "#1f77b4", top);
  line(pen, courses[1], "#ff7f0e", top);
  const weights = parameters[0].data, limit = Math.max(...weights.map(Math.abs));
  document.querySelectorAll("#units canvas").forEach((canvas, unit) => {
    const picture = new ImageData(SIDE, SIDE);
    weights.slice(SIDE*SIDE*unit, SIDE*SIDE*(unit + 1)).forEach((weight, i) => {
      const rest = Math.round(255*(1 - Math.abs(weight)/limit));
      picture.data.set(weight > 0 ? [255, rest, rest, 255] : [rest, rest, 255, 255], 4*i);
    });
    canvas.getContext("2d").putImageData(picture, 0, 0);
  });
}
function run() {
  if (!running) return;
  epoch();
  draw();
  setTimeout(run, 60);
}
find("#units").innerHTML = `<canvas width="${SIDE}" height="${SIDE}"></canvas>`.repeat(UNITS);
find("#learn").addEventListener("click", event => {
  running = !running;
  event.target.textContent = running ? "Pause" : "Learn";
  run();
});
find("#again").addEventListener("click", start);
find("#rate").addEventListener("input", () => { find("output").textContent = rate(); });
start();
