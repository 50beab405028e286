// A sheet to draw a digit on, with mouse, finger or keys; beside it what the models get to see, and what they answer.
// `names` are those of the models, `examples` strokes for each digit. `changed(pixels, settings)` is called while
// somebody draws, with SIDE * SIDE bytes, 0 for ink and 255 for paper. The result has `show({picture, answers, message})`:
// 28 * 28 numbers from 0 to 255 for ink, ten probabilities a model, and words where there are none.
const SIDE = 280, PEN = 16;

function pad(place, {names, examples, changed}) {
  const SLIDERS = {right: [-8, 8, 1, "pixels"], down: [-8, 8, 1, "pixels"], turn: [-60, 60, 5, "degrees"], thicker: [-1, 2, 0.25, ""]};
  place.innerHTML = `<div class="pad">
    <style>
      .pad { display: flex; flex-wrap: wrap; gap: 18px; background: #fff; color: #222; font: 15px/1.4 sans-serif; padding: 8px; }
      .pad canvas { border: 1px solid #767676; background: #fff; display: block; }
      .pad .paper { width: ${SIDE}px; height: ${SIDE}px; cursor: crosshair; touch-action: none; }
      .pad .seen { width: 112px; height: 112px; image-rendering: pixelated; }
      .pad button, .pad select { font: inherit; margin: 6px 4px 6px 0; padding: 2px 8px; color: #222; background: #f3f3f3; border: 1px solid #767676; border-radius: 3px; }
      .pad label { display: flex; gap: 8px; align-items: center; }
      .pad label span { width: 4em; } .pad input[type=range] { flex: 1; min-width: 60px; } .pad output { width: 5.5em; }
      .pad table { border-collapse: collapse; } .pad tr { height: 44px; } .pad th { text-align: left; font-weight: normal; padding-right: 10px; }
      .pad td { padding: 0 1px; text-align: center; vertical-align: bottom; height: 40px; } .pad td i { display: block; width: 15px; background: #9ab8d8; }
      .pad td.best i { background: #0a4f94; } .pad td.best { font-weight: bold; } .pad td.says { font-size: 26px; min-width: 1.4em; vertical-align: middle; }
    </style>
    <div style="width: ${SIDE + 2}px">
      <canvas class="paper" width="${SIDE}" height="${SIDE}" tabindex="0" role="application"
        aria-label="Paper. Draw a digit with the mouse or a finger. Or with keys: arrows move the pen, space sets it down and lifts it."></canvas>
      <button class="clear">Clear</button><button class="undo">Undo</button><button class="photo" title="Open a picture; its middle is used">Photo</button>
      <input type="file" accept="image/*" hidden>
      <select aria-label="an example"><option value="">example</option>${Object.keys(examples).map(digit => `<option>${digit}</option>`).join("")}</select>
      <div class="message" aria-live="polite"></div>
    </div>
    <div style="flex: 1 1 330px; min-width: 0">
      <div style="display: flex; flex-wrap: wrap; gap: 14px">
        <div>what the models get<canvas class="seen" width="28" height="28" role="img" aria-label="the picture that the models get"></canvas></div>
        <div style="flex: 1 1 190px">
          ${Object.entries(SLIDERS).map(([name, [low, high, step]]) => `<label><span>${name}</span>
            <input type="range" name="${name}" min="${low}" max="${high}" step="${step}" value="0"><output></output></label>`).join("")}
          <label><input type="checkbox" name="prepared" checked>prepared as MNIST's makers did</label>
        </div>
      </div>
      <table>${names.map(name => `<tr><th scope="row">${name}</th><td class="says"></td>${"<td></td>".repeat(10)}</tr>`).join("")}</table>
    </div></div>`;
  const find = selector => place.querySelector(selector), paper = find(".paper");
  const pen = paper.getContext("2d", {willReadFrequently: true});
  const inputs = [...place.querySelectorAll("input[name]")], file = find("input[type=file]");
  let strokes = [], photo = null, drawing = false, keys = null, sent = 0;  // keys: where the keyboard's pen stands
  const past = [];  // what "Undo" goes back to

  function settings() {
    return Object.fromEntries(inputs.map(input => [input.name, input.type === "range" ? Number(input.value) : input.checked]));
  }
  function paint() {
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, SIDE, SIDE);
    if (photo) {  // the middle of it
      const scale = SIDE/Math.min(photo.width, photo.height), [width, height] = [scale*photo.width, scale*photo.height];
      pen.drawImage(photo, (SIDE - width)/2, (SIDE - height)/2, width, height);
    }
    Object.assign(pen, {lineWidth: PEN, lineCap: "round", lineJoin: "round", strokeStyle: "#000"});
    for (const stroke of strokes) {
      pen.beginPath();
      stroke.forEach(([right, down]) => pen.lineTo(right*SIDE, down*SIDE));
      if (stroke.length === 1) pen.lineTo(stroke[0][0]*SIDE + 0.1, stroke[0][1]*SIDE);  // a dot
      pen.stroke();
    }
  }
  function mark() {  // after the pixels were read: where the keyboard's pen stands
    if (!keys) return;
    pen.fillStyle = keys.down ? "#d62728" : "#1f77b4";
    pen.fillRect(keys.right*SIDE - 5, keys.top*SIDE - 5, 10, 10);
  }
  function send() {
    paint();
    const rgba = pen.getImageData(0, 0, SIDE, SIDE).data, pixels = new Uint8Array(SIDE*SIDE);
    pixels.forEach((_, i) => { pixels[i] = Math.round(0.299*rgba[4*i] + 0.587*rgba[4*i + 1] + 0.114*rgba[4*i + 2]); });
    mark();
    inputs.filter(input => input.type === "range").forEach(input => {
      input.nextElementSibling.textContent = `${input.value} ${SLIDERS[input.name][3]}`;
    });
    sent = Date.now();
    changed(pixels, settings());
  }
  function here(event) {
    const {left, top, width} = paper.getBoundingClientRect();
    return [(event.clientX - left)/width, (event.clientY - top)/width];
  }
  function show({picture, answers, message}) {
    const image = new ImageData(28, 28);
    picture.forEach((ink, i) => image.data.set([255 - ink, 255 - ink, 255 - ink, 255], 4*i));
    find(".seen").getContext("2d").putImageData(image, 0, 0);
    find(".message").textContent = message;
    place.querySelectorAll("tr").forEach((row, i) => {
      const [says, ...cells] = row.querySelectorAll("td"), shares = answers[i], best = shares ? shares.indexOf(Math.max(...shares)) : -1;
      says.textContent = shares ? best : "";
      cells.forEach((cell, digit) => {
        cell.className = digit === best ? "best" : "";
        cell.innerHTML = shares ? `<i style="height: ${Math.round(24*shares[digit])}px" title="${(100*shares[digit]).toFixed(0)} %"></i>${digit}` : "";
      });
    });
  }
  paper.addEventListener("pointerdown", event => {
    if (event.isPrimary === false) return;
    paper.setPointerCapture(event.pointerId);
    keep();
    drawing = true;
    strokes.push([here(event)]);
    paint();
  });
  paper.addEventListener("pointermove", event => {
    if (!drawing) return;
    strokes.at(-1).push(here(event));
    if (Date.now() - sent > 200) send(); else paint();
  });
  for (const name of ["pointerup", "pointercancel"]) paper.addEventListener(name, () => { if (drawing) send(); drawing = false; });
  paper.addEventListener("keydown", event => {
    const step = {ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1], " ": [0, 0]}[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();  // the notebook has other plans with these keys
    keys ??= {right: 0.5, top: 0.2, down: false};
    const inside = at => Math.max(0.05, Math.min(0.95, at));
    keys.right = inside(keys.right + 0.025*step[0]);
    keys.top = inside(keys.top + 0.025*step[1]);
    if (event.key === " " && (keys.down = !keys.down)) {
      const {right, top} = keys;
      keep();
      keys = {right, top, down: true};
      strokes.push([]);
    }
    if (keys.down) strokes.at(-1).push([keys.right, keys.top]);
    send();
  });
  function keep() {  // before something new
    past.push([structuredClone(strokes), photo]);
    keys = null;
    find("select").value = "";
  }
  function start(own, picture = null) { keep(); [strokes, photo] = [own, picture]; send(); }
  find(".clear").addEventListener("click", () => {
    for (const input of inputs) if (input.type === "range") input.value = 0;
    start([]);
  });
  find(".undo").addEventListener("click", () => { [strokes, photo] = past.pop() ?? [[], null]; keys = null; send(); });
  find("select").addEventListener("change", event => start(structuredClone(examples[event.target.value] ?? [])));
  find(".photo").addEventListener("click", () => file.click());
  file.addEventListener("change", async () => {
    if (!file.files.length) return;
    try { start([], await createImageBitmap(file.files[0])); }
    catch { start([]); find(".message").textContent = "That file is no picture that a browser can open."; }
    file.value = "";
  });
  inputs.forEach(input => input.addEventListener("input", send));
  send();
  return {show};
}
