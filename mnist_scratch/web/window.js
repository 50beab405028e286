// A window of 3 by 3 weights to move over a digit; beside it the picture that it makes, number by number. `data` holds
// the digit, rows of pixels from 0 to 1, and `windows`: names and rows of weights.
const {image, windows} = data, SIDE = image.length, PLACES = SIDE - 2, SCALE = 9;
document.body.innerHTML = `
  <style>
    #pictures { display: flex; gap: 16px; align-items: flex-start; flex-wrap: wrap; }
    canvas { width: ${SIDE*SCALE}px; max-width: 47%; border: 1px solid #888; }
    #digit { cursor: crosshair; touch-action: none; }
    #weights { display: grid; grid-template-columns: repeat(3, 4.2em); gap: 4px; margin: 8px 0; }
    #weights input { font: inherit; min-width: 0; }
    #below { display: flex; gap: 20px; align-items: center; flex-wrap: wrap; }
  </style>
  <div id="pictures">
    <canvas id="digit" role="img" aria-label="the digit, with the window on it"></canvas>
    <canvas id="result" role="img" aria-label="what the window gives at each place"></canvas>
  </div>
  <label><span>row</span><input id="row" type="range" min="0" max="${PLACES - 1}" value="${data.place[0]}"><output></output></label>
  <label><span>column</span><input id="column" type="range" min="0" max="${PLACES - 1}" value="${data.place[1]}"><output></output></label>
  <div id="words" aria-live="polite"></div>
  <div id="below">
    <div id="weights">${Array(9).fill('<input type="number" step="0.5" aria-label="weight">').join("")}</div>
    <div id="presets"></div>
  </div>`;
const find = selector => document.querySelector(selector), cells = [...document.querySelectorAll("#weights input")];

function convolve(weights) {
  return Array.from({length: PLACES}, (_, row) => Array.from({length: PLACES}, (_, column) =>
    weights.reduce((sum, weight, i) => sum + weight*image[row + Math.floor(i/3)][column + i % 3], 0)));
}

function paint(canvas, rows, colour) {
  const pen = canvas.getContext("2d");
  canvas.width = rows[0].length*SCALE;
  canvas.height = rows.length*SCALE;
  rows.forEach((values, row) => values.forEach((value, column) => {
    pen.fillStyle = colour(value);
    pen.fillRect(column*SCALE, row*SCALE, SCALE, SCALE);
  }));
  return pen;
}

function mark(pen, row, column, side) {
  pen.strokeStyle = "#d95f02";
  pen.lineWidth = 3;
  pen.strokeRect(column*SCALE, row*SCALE, side*SCALE, side*SCALE);
}

const grey = value => `rgb(${Array(3).fill(Math.round(255*(1 - value)))})`;
const signed = limit => value => {  // red above zero, blue below
  const rest = Math.round(255*(1 - Math.min(1, Math.abs(value)/limit)));
  return value > 0 ? `rgb(255, ${rest}, ${rest})` : `rgb(${rest}, ${rest}, 255)`;
};

function draw() {
  const weights = cells.map(cell => Number(cell.value)), row = Number(find("#row").value), column = Number(find("#column").value);
  const result = convolve(weights), limit = Math.max(0.01, ...result.flat().map(Math.abs));
  mark(paint(find("#digit"), image, grey), row, column, 3);
  mark(paint(find("#result"), result, signed(limit)), row, column, 1);
  document.querySelectorAll("output").forEach((output, i) => { output.textContent = [row, column][i]; });
  find("#words").textContent = `Nine pixels times nine weights, added up: ${result[row][column].toFixed(2)}`;
}

for (const [name, rows] of windows) {
  const button = document.createElement("button");
  button.textContent = name;
  button.addEventListener("click", () => { rows.flat().forEach((weight, i) => { cells[i].value = weight; }); draw(); });
  find("#presets").append(button);
}
find("#digit").addEventListener("pointermove", event => {
  const {left, top, width} = find("#digit").getBoundingClientRect(), inside = at => Math.max(0, Math.min(PLACES - 1, at));
  find("#row").value = inside(Math.floor((event.clientY - top)/width*SIDE) - 1);
  find("#column").value = inside(Math.floor((event.clientX - left)/width*SIDE) - 1);
  draw();
});
document.querySelectorAll("input").forEach(input => input.addEventListener("input", draw));
find("#presets button").click();
