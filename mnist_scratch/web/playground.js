// The first page of the website: a sheet to draw on, read by nets that have learned before, and by one that learns while
// one looks. PLAYGROUND holds the nets, the images to learn from, and their labels; see scripts/website.py.
const playground = (() => {
  const N_TRAIN = 3000, N_VALID = 1000, SHOWN = 16;  // images; units whose weights are drawn
  const find = selector => document.querySelector(`#playground ${selector}`);
  const best = shares => shares.indexOf(Math.max(...shares));

  // ---- the nets that have learned before

  const numbers = new Int16Array(bytes(PLAYGROUND.numbers).buffer);
  function unpacked(value) {  // a tensor is kept as a place among the numbers and a scale for them
    if (typeof value !== "object") return value;
    if (Array.isArray(value)) return value.map(unpacked);
    if (!("at" in value)) return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, unpacked(one)]));
    const size = value.shape.reduce((product, side) => product*side, 1);
    return engine.tensor(Float32Array.from(numbers.subarray(value.at, value.at + size), one => one*value.scale), value.shape);
  }
  const nets = unpacked(PLAYGROUND.nets), means = nets.means;
  const LOGITS = {
    "pixel means": image => Array.from({length: 10}, (_, digit) =>
      -image.data.reduce((sum, ink, i) => sum + (ink - means.data[784*digit + i])**2, 0)/784),
    "linear": image => engine.linear(image, ...nets.linear).data,
    "two-layer net": image => engine.twoLayer(nets.twoLayer, image).data,
    "convolutional net": image => engine.convNet(nets.convNet, image).data,
    "learning below": image => epochs ? logitsOf(image).data : null,  // nobody asks who has not begun
  };
  function softmax(logits) {
    const most = Math.max(...logits), powers = Array.from(logits, logit => Math.exp(logit - most));
    const total = powers.reduce((sum, power) => sum + power);
    return powers.map(power => power/total);
  }
  const answers = image => Object.values(LOGITS).map(logits => {
    const own = logits(engine.tensor(image, [1, 784]));
    return own && softmax(own);
  });

  let drawing = null;  // what the nets get to see
  const empty = {picture: new Array(784).fill(0), answers: []};
  function prepared(pixels, {prepared, ...moves}) {
    const side = Math.sqrt(pixels.length), grey = digits.picture(side, side, Float32Array.from(pixels, value => value/255));
    return digits.altered((prepared ? digits.asMnist : digits.onlyResized)(grey), moves).data;
  }
  function changed(pixels, settings) {
    drawing = null;
    if (pixels.every(value => value === 255)) return show({...empty, message: "Draw a digit, open a photo of one, or choose an example."});
    try { drawing = prepared(pixels, settings); } catch (error) { return show({...empty, message: `As it stands, ${error.message}`}); }
    answer();
  }
  const show = reply => { sheet?.show(reply); if (!reply.answers.length) votes(); };
  function answer() {
    if (!drawing) return;
    const said = answers(drawing);
    show({picture: Array.from(drawing, ink => 255*ink), answers: said, message: ""});
    votes(said[0]);
  }
  function paint(canvas, values, limit) {  // red positive, blue negative, white 0
    const image = new ImageData(28, 28);
    values.forEach((value, i) => {
      const rest = Math.round(255*(1 - Math.min(1, Math.abs(value)/limit)));
      image.data.set(value > 0 ? [255, rest, rest, 255] : [rest, rest, 255, 255], 4*i);
    });
    canvas.getContext("2d").putImageData(image, 0, 0);
  }
  function votes(shares) {  // of each pixel, between the two means that are nearest
    const [one, other] = shares ? [...shares.keys()].sort((a, b) => shares[b] - shares[a]) : [];
    const apart = (digit, i) => (drawing[i] - means.data[784*digit + i])**2;
    paint(find(".votes canvas"), Array.from({length: 784}, (_, i) => shares ? apart(other, i) - apart(one, i) : 0), 0.6);
    find(".votes span").textContent = shares ? `Why the pixel means say ${one} and not ${other}, by a hair (their ten distances hardly differ): red pixels vote for ${one}, blue ones for ${other}.` : "";
  }

  // ---- the net that learns

  const KNOBS = {  // what each is called, its settings, and the first one
    loss: ["loss", ["cross-entropy", "softmax + MSE", "sigmoid + MSE"], "cross-entropy"],
    start: ["first weights", ["1/√inputs", "all zero", "far too large"], "1/√inputs"],
    rate: ["learning rate", ["1/64", "1/16", "1/4", "1", "4", "16", "64"], "1"],
    batch: ["images a step", ["8", "32", "128", "512"], "32"],
    units: ["hidden units", ["2", "8", "32", "64", "128"], "64"],
    images: ["images to learn from", ["30", "100", "300", "1000", "3000"], "3000"],
  };
  const knob = name => find(`[name=${name}]`).value;
  const number = name => knob(name).split("/").map(Number).reduce((above, below) => above/below);
  const LOSSES = {
    "cross-entropy": engine.crossEntropy,
    "softmax + MSE": (logits, labels) => squared(engine.exp(engine.logSoftmax(logits)), labels),
    "sigmoid + MSE": (logits, labels) => squared(engine.sigmoid(logits), labels),
  };
  function squared(said, labels) {  // the mean squared error to 1 for the true digit and 0 for the others
    const wished = engine.tensor(labels.flatMap(label => Array.from({length: 10}, (_, digit) => Number(digit === label))), said.shape);
    const off = engine.subtract(said, wished);
    return engine.mean(engine.multiply(off, off));
  }
  const labels = Array.from(PLAYGROUND.labels, Number);
  let images, parameters, courses, epochs, counted, measuredAt = 0, order, next, run = 0;  // run: the number of the one that may go on, 0 for none

  const deviation = n_in => ({"1/√inputs": 1/Math.sqrt(n_in), "all zero": 0, "far too large": 1})[knob("start")];
  const logitsOf = batch => engine.twoLayer(parameters, batch);
  function batchOf(places) {
    const batch = new Float32Array(784*places.length);
    places.forEach((place, row) => batch.set(images.subarray(784*place, 784*place + 784), 784*row));
    return [engine.tensor(batch, [places.length, 784]), places.map(place => labels[place])];
  }
  function measured(some) {
    const [batch, wanted] = batchOf(some), logits = logitsOf(batch);
    const right = wanted.filter((label, row) => best([...logits.data.subarray(10*row, 10*row + 10)]) === label).length;
    return {loss: LOSSES[knob("loss")](logits, wanted).data[0], right};
  }
  function begin() {
    parameters = [[784, number("units")], [number("units"), 10]].flatMap(([n_in, n_out]) => layer(n_in, n_out, deviation(n_in)));
    [courses, epochs, counted, order, next] = [[], 0, 0, [], 0];
    measure();
  }
  function step() {
    if (next >= order.length) [order, next] = [shuffled(places(0, number("images"))), 0];
    const some = order.slice(next, next += number("batch")), [batch, wanted] = batchOf(some);
    LOSSES[knob("loss")](logitsOf(batch), wanted).backward();
    engine.step(parameters, number("rate"));
    epochs += some.length/order.length;
  }
  function measure() {
    const seen = measured(places(0, Math.min(number("images"), N_VALID))), others = measured(places(N_TRAIN, N_VALID));
    courses.push([epochs, seen.loss, others.loss]);
    const share = 100*seen.right/Math.min(number("images"), N_VALID);
    find(".words").textContent = Number.isFinite(seen.loss + others.loss) ?
      `Epoch ${Math.round(epochs)}: it reads ${others.right} of 1,000 digits that it never learns from, and ${share.toFixed(0)} % of those that it learns from.` :
      "The numbers have become too large to count with. Start again, with a smaller learning rate.";
    if (!Number.isFinite(seen.loss + others.loss)) pause();
    curves();
    const weights = parameters[0].data, limit = weights.reduce((most, weight) => Math.max(most, Math.abs(weight)), 1e-9);
    document.querySelectorAll("#playground .units canvas").forEach((canvas, unit) => {
      canvas.hidden = unit >= number("units");
      paint(canvas, Array.from({length: 784}, (_, i) => weights[784*unit + i] ?? 0), limit);
    });
    answer();
  }
  function curves() {
    const canvas = find(".curves"), pen = canvas.getContext("2d"), width = canvas.width = canvas.clientWidth, {height} = canvas;
    const top = Math.max(...courses.flatMap(([, seen, others]) => [seen, others]).filter(Number.isFinite), 1e-6), end = Math.max(15, epochs);
    const x = epoch => 44 + (width - 54)*epoch/end, y = loss => height - 24 - (height - 34)*Math.min(1.02, loss/top);
    Object.assign(pen, {font: "13px sans-serif", fillStyle: "#444", strokeStyle: "#999", lineWidth: 1});
    pen.strokeRect(44, 10, width - 54, height - 34);
    pen.textAlign = "right";
    for (const share of [0, 0.5, 1]) pen.fillText(Number((top*share).toPrecision(2)), 40, y(top*share) + 4);
    for (const epoch of [0, end]) pen.fillText(Math.round(epoch), x(epoch) + 4, height - 8);
    pen.lineWidth = 2;
    for (const [which, colour] of [[1, "#1f77b4"], [2, "#d95f02"]]) {
      pen.strokeStyle = colour;
      pen.beginPath();
      courses.forEach(course => pen.lineTo(x(course[0]), y(course[which])));
      pen.stroke();
    }
  }
  function pause() {
    run = 0;
    find(".learn").textContent = "Learn";
  }
  function goOn(own) {  // a little, then let the page breathe
    if (run !== own) return;
    const start = performance.now();
    while (performance.now() - start < 40) {
      step();
      if (Math.floor(epochs + 1e-9) > counted && performance.now() - measuredAt > 150) {
        counted = Math.floor(epochs + 1e-9);
        measure();
        measuredAt = performance.now();
      }
    }
    answer();
    setTimeout(() => goOn(own));
  }

  // ---- the page

  document.getElementById("playground").innerHTML = `
    <div class="card"><div class="sheet"></div>
      <p class="votes"><canvas width="28" height="28" role="img" aria-label="the votes of the pixels between the two nearest means"></canvas><span></span></p></div>
    <div class="card">
      <p><b>Now teach one yourself.</b> A two-layer net begins with random weights and learns here, in your browser. Draw above, and watch its answer.</p>
      <div class="knobs">${Object.entries(KNOBS).map(([name, [title, choices, first]]) => `<label>${title}<select name="${name}">${
        choices.map(choice => `<option${choice === first ? " selected" : ""}>${choice}</option>`).join("")}</select></label>`).join("")}</div>
      <p><button class="learn">Learn</button> <button class="again">Start again</button></p>
      <p class="words" aria-live="polite"></p>
      <canvas class="curves" width="640" height="200" role="img" aria-label="the loss over the epochs, of the digits that it learns from and of the others"></canvas>
      <p class="legend"><i style="background: #1f77b4"></i>loss of the digits that it learns from (of at most 1,000) <i style="background: #d95f02"></i>loss of 1,000 others, over epochs</p>
      <div class="units" role="img" aria-label="the weights of the first ${SHOWN} hidden units as pictures: red positive, blue negative">${'<canvas width="28" height="28"></canvas>'.repeat(SHOWN)}</div>
      <p class="legend">What its hidden units look for, the first ${SHOWN} of them: red pixels speak for ink, blue ones against.</p>
      <p class="legend">The nets above have learned from ${PLAYGROUND.learnedFrom}, as in lesson 08. All images are MNIST's, by Yann LeCun,
        Corinna Cortes and Christopher J. C. Burges, under <a href="https://creativecommons.org/licenses/by-sa/3.0/">CC BY-SA 3.0</a>.</p>
    </div>`;
  let sheet = null;
  const ready = unpackedImages().then(all => {
    images = all;
    begin();
    sheet = pad(find(".sheet"), {names: Object.keys(LOGITS), examples: PLAYGROUND.examples, changed});
    const example = find(".sheet select");
    example.value = "3";
    example.dispatchEvent(new Event("change"));
    find(".learn").addEventListener("click", () => {
      if (run) return pause();
      find(".learn").textContent = "Pause";
      goOn(run = performance.now());
    });
    find(".again").addEventListener("click", begin);
    for (const name of Object.keys(KNOBS)) if (!["rate", "batch"].includes(name)) find(`[name=${name}]`).addEventListener("change", begin);
  });
  return {answers, prepared, ready};
})();
