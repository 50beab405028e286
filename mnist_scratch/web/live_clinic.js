// A net learns in the page, and one thing is wrong with it, by chance. The visitor takes readings and names the fault.
// Needs engine.js and site.js.
const clinic = (() => {
  const UNITS = 32, BATCH = 50, EPOCHS = 12, HELD = 3000, N_HELD = 500;  // the held-out images begin at HELD
  const HEALTHY = {n: 1000, rate: 0.5, deviation: 1, scale: 1, mixed: false, forgets: true, uphill: false, turned: false, held: HELD};
  const FAULTS = {  // what is changed, and the sign of it
    "nothing is wrong with it": [{}, "every reading much like the healthy net's"],
    "its steps are too large": [{rate: 60}, "a first step a hundred times as large as the healthy net's"],
    "its steps are too small": [{rate: 0.004}, "steps a hundredth as large, and a loss that hardly moves"],
    "the labels belong to other images": [{mixed: true}, "images and labels that do not fit, at a look"],
    "all its weights begin at zero": [{deviation: 0}, "hidden units that are all alike"],
    "the pixels go from 0 to 255": [{scale: 255}, "pixels up to 255"],
    "old gradients are never cleared": [{forgets: false}, "a first step like the healthy net's, a tenth one several times as large, and a loss that falls before it climbs"],
    "it has too few images to learn from": [{n: 30}, "a pile of 30, a training loss near 0 and a high validation loss"],
    "it is judged by images that it learns from": [{held: 0}, "images that lie in both piles, and two losses that are alike"],
    "it goes uphill": [{uphill: true}, "a first step like the healthy net's, a loss that climbs from the start, and ten images that it never learns by heart"],
    "it is judged by pictures turned by a quarter": [{turned: true}, "held-out pictures that lie on their side, at a look"],
  };
  const find = selector => document.querySelector(`#clinic ${selector}`);
  const labels = Array.from(PLAYGROUND.labels, Number);
  let images, healthy, patient, fault, taken, guesses, begun = 0;

  const fresh = ({deviation}) => [...layer(784, UNITS, deviation/28), ...layer(UNITS, 10, deviation/Math.sqrt(UNITS))];
  const seen = ({scale, turned}, place, isHeld) => Float32Array.from({length: 784}, (_, i) =>
    scale*images[784*place + (turned && isHeld ? 28*(27 - i % 28) + Math.floor(i/28) : i)]);

  function lossOf(run, pile, isHeld = false) {
    const batch = new Float32Array(784*pile.length);
    pile.forEach((place, row) => batch.set(seen(run, place, isHeld), 784*row));
    return engine.crossEntropy(engine.twoLayer(run.net, engine.tensor(batch, [pile.length, 784])),
                               pile.map(place => isHeld ? labels[place] : run.labelOf(place)));
  }
  const size = numbers => Math.sqrt(numbers.reduce((sum, one) => sum + one*one, 0));
  function step(run, pile) {  // the length of the step, as a share of the weights'
    lossOf(run, pile).backward();
    const [first] = run.net, kept = run.net.map(({grad}) => grad.slice());
    const share = run.rate*size(first.grad)/(size(first.data) || 1);
    engine.step(run.net, run.uphill ? -run.rate : run.rate);
    if (!run.forgets) run.net.forEach((one, i) => { one.grad = kept[i]; });
    return share;
  }
  function admit(changes) {
    const run = {...HEALTHY, ...changes, steps: [], losses: [[], []]}, moved = shuffled(places(0, run.n));
    run.labelOf = place => labels[run.mixed ? moved[place] : place];
    run.net = fresh(run);
    return run;
  }
  async function learn(run) {
    const mine = begun;
    for (let epoch = 0; epoch <= EPOCHS; epoch++) {
      const order = shuffled(places(0, HEALTHY.n).map(place => place % run.n));  // as many steps, also from few images
      for (let i = 0; epoch && i < HEALTHY.n; i += BATCH) run.steps.push(step(run, order.slice(i, i + BATCH)));
      run.losses[0].push(lossOf(run, places(0, Math.min(run.n, N_HELD))).data[0]);
      run.losses[1].push(lossOf(run, places(run.held, N_HELD), true).data[0]);
      if (run === patient) draw();
      await new Promise(resolve => setTimeout(resolve));
      if (mine !== begun) return;
    }
  }
  function draw() {
    const canvas = find(".curves"), pen = canvas.getContext("2d"), width = canvas.width = canvas.clientWidth;
    const runs = [[healthy, [3, 4], 1], [patient, [], 2.5]], top = 4.6, x = epoch => 34 + (width - 44)*epoch/EPOCHS;
    Object.assign(pen, {font: "13px sans-serif", fillStyle: "#444", strokeStyle: "#999"});
    pen.strokeRect(34, 10, width - 44, 150);
    for (const tick of [0, 2.3, 4.6]) pen.fillText(tick, 6, 164 - 150*tick/top);
    for (const tick of [0, 6, 12]) pen.fillText(tick, x(tick) - 6, 176);
    for (const [{losses}, dashes, lineWidth] of runs) losses.forEach((course, which) => {
      Object.assign(pen, {lineWidth, strokeStyle: ["#1f77b4", "#d95f02"][which]});
      pen.setLineDash(dashes);
      pen.beginPath();
      course.forEach((loss, epoch) => pen.lineTo(x(epoch), 160 - 150*Math.min(1, (Number.isFinite(loss) ? loss : 99)/top)));
      pen.stroke();
    });
    pen.setLineDash([]);
  }

  // ---- the instruments: each gives words, or pictures with words below them

  const short = number => Number.isFinite(number) ? (number < 100 ? Number(number.toPrecision(2)) : Math.round(number)) : "too large to count";
  const INSTRUMENTS = {
    "first loss": run => short(run.losses[0][0]),
    "ten by heart": run => {
      const own = {...run, net: fresh(run)}, ten = places(0, 10);
      for (let i = 0; i < 100; i++) step(own, ten);
      return `loss ${short(lossOf(own, ten).data[0])} of ten images after 100 steps`;
    },
    "piles": ({n, held}) => `${n} to learn from, ${N_HELD} to be judged by, ${held === HELD ? 0 : Math.min(n, N_HELD)} in both`,
    "pixels": run => `from ${Math.min(...seen(run, 0))} to ${short(Math.max(...seen(run, 0)))}`,
    "steps": ({steps}) => `${short(100*steps[0])} % of the weights in the first step, ${short(100*steps[9])} % in the tenth`,
    "a look": run => [
      "it learns from", ...places(0, 5).map(place => [seen(run, place, false), run.scale, run.labelOf(place)]),
      "it is judged by", ...places(run.held, 5).map(place => [seen(run, place, true), run.scale, labels[place]])],
    "hidden units": run => places(0, 5).map(unit => {
      const weights = run.net[0].data.slice(784*unit, 784*unit + 784);
      return [weights, -Math.max(...run.net[0].data.map(Math.abs)), ""];
    }),
  };
  function shown(reading) {
    const cell = document.createElement("td");
    if (!Array.isArray(reading)) { cell.textContent = reading; return cell; }
    for (const part of reading) {
      if (typeof part === "string") { cell.insertAdjacentHTML("beforeend", `<div>${part}</div>`); continue; }
      const [values, limit, word] = part;  // a negative limit: red above 0, blue below
      const figure = document.createElement("span"), canvas = document.createElement("canvas"), picture = new ImageData(28, 28);
      values.forEach((value, i) => {
        const rest = Math.round(255*(1 - Math.min(1, Math.abs(value)/(Math.abs(limit) || 1))));
        picture.data.set(limit > 0 ? [rest, rest, rest, 255] : value > 0 ? [255, rest, rest, 255] : [rest, rest, 255, 255], 4*i);
      });
      canvas.width = canvas.height = 28;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", word === "" ? "weights of a unit" : `a picture with the label ${word}`);
      canvas.getContext("2d").putImageData(picture, 0, 0);
      figure.append(canvas, word);
      cell.append(figure);
    }
    return cell;
  }
  function read(name) {
    if (taken.has(name)) return;
    taken.add(name);
    const row = find("tbody").insertRow(0), head = document.createElement("th");
    head.scope = "row";
    head.textContent = name;
    row.append(head, shown(INSTRUMENTS[name](patient)), shown(INSTRUMENTS[name](healthy)));
  }
  function name() {
    const said = find("select").value;
    if (!said) { find(".verdict").textContent = "Choose a fault first."; return; }
    guesses += 1;
    const counted = (n, word) => `${n} ${word}${n === 1 ? "" : word === "guess" ? "es" : "s"}`;
    find(".verdict").textContent = said === fault ?
      `Yes: ${fault}. You needed ${counted(taken.size, "reading")} and ${counted(guesses, "guess")}. The sign of it: ${FAULTS[fault][1]}.` :
      `Not that. There one would see ${FAULTS[said][1]}.`;
  }
  async function next(chosen) {
    begun += 1;
    const last = fault && !find(".verdict").textContent.startsWith("Yes") ? `The last patient: ${fault}. ` : "";
    fault = chosen ?? shuffled(Object.keys(FAULTS).filter(one => one !== fault))[0];
    [taken, guesses, patient, healthy] = [new Set(), 0, admit(FAULTS[fault][0]), admit({})];
    patient.net = healthy.net.map(({data, shape}) => engine.tensor(data.map(one => one*patient.deviation), shape, true));
    draw();
    find("tbody").replaceChildren();
    find(".verdict").textContent = `${last}The next one learns …`;
    find("select").value = "";
    document.querySelectorAll("#clinic button").forEach(button => { button.disabled = true; });
    const mine = begun;
    await learn(healthy);
    if (mine === begun) await learn(patient);
    if (mine !== begun) return;
    document.querySelectorAll("#clinic button").forEach(button => { button.disabled = false; });
    find(".verdict").textContent = `${last}It has learned. What is wrong with it?`;
  }
  document.getElementById("clinic").innerHTML = `<div class="card">
    <canvas class="curves" height="180" role="img" aria-label="the losses of the patient and, dashed, of a healthy net, over the epochs"></canvas>
    <p class="legend"><i style="background: #1f77b4"></i>loss of the images that it learns from <i style="background: #d95f02"></i>loss of those that it is judged by, over epochs; dashed, a healthy net. The frame ends at 4.6.</p>
    <p>${Object.keys(INSTRUMENTS).map(name => `<button class="read">${name}</button>`).join(" ")}</p>
    <p><select aria-label="the fault"><option value="">the fault is …</option>${Object.keys(FAULTS).map(name => `<option>${name}</option>`).join("")}</select>
      <button class="name">Name it</button> <button class="next">Next patient</button></p>
    <p class="verdict" aria-live="polite"></p>
    <table><thead><tr><th scope="col">reading</th><th scope="col">the patient</th><th scope="col">a healthy net</th></tr></thead><tbody></tbody></table></div>`;
  document.querySelectorAll("#clinic .read").forEach(button => button.addEventListener("click", () => read(button.textContent)));
  find(".name").addEventListener("click", name);
  find(".next").addEventListener("click", () => next());
  const ready = unpackedImages().then(all => { images = all; return next(); });
  return {next, ready, faults: Object.keys(FAULTS), fault: () => fault};
})();
