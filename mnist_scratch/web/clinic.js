// A patient: its losses, and a button for each instrument. `data` holds `losses`, of which each has the name of a curve
// and one number an epoch, and `readings`: the name of an instrument, what it says of the patient, and of a healthy run.
// What an instrument says is a text, or ten images in one row with their labels.
const WIDTH = 540, HEIGHT = 214, COLOURS = ["#d95f02", "#7f1d1d", "#222", "#222"], DASHES = ["", "7 4", "", "7 4"];
document.body.innerHTML = `
  <style>
    svg, img { width: 100%; display: block; }
    img { image-rendering: pixelated; }
    text { font-size: 12px; }
    table { border-collapse: collapse; margin-top: 8px; width: 100%; table-layout: fixed; }
    th, td { text-align: left; vertical-align: top; padding: 2px 10px 2px 0; font-weight: normal; white-space: pre-line; }
    th:first-child { width: 7.5em; }
    .labels { display: flex; } .labels span { flex: 1; text-align: center; }
  </style>
  <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="losses, epoch by epoch"></svg>
  <div id="buttons"></div>
  <div id="words" aria-live="polite">Which instrument first?</div>
  <table><thead><tr><th></th><th>this patient</th><th>healthy</th></tr></thead><tbody></tbody></table>`;

const highest = Math.min(4, Math.max(...data.losses.flatMap(([, values]) => values)));
const x = epoch => 30 + (WIDTH - 40)*epoch/(data.losses[0][1].length - 1), y = loss => 170*(1 - Math.min(loss/highest, 1)) + 8;
document.querySelector("svg").innerHTML =
  `<path d="M 30 8 V 178 H ${WIDTH - 10}" fill="none" stroke="#888"/><text x="0" y="14">${highest.toFixed(1)}</text>
   <text x="14" y="182">0</text><text x="${WIDTH - 55}" y="194">epochs</text>` +
  data.losses.map(([name, values], i) =>
    `<polyline fill="none" stroke="${COLOURS[i]}" stroke-width="${i < 2 ? 2.5 : 1}" stroke-dasharray="${DASHES[i]}"
      points="${values.map((loss, epoch) => `${x(epoch)},${y(loss)}`).join(" ")}"/>
     <text x="${45 + 240*(i % 2)}" y="${194 + 15*Math.floor(i/2)}" fill="${COLOURS[i]}">${DASHES[i] ? "- -" : "—"} ${name}</text>`).join("");

const shown = said => typeof said === "string" ? said :
  `<img alt="ten images" src="${said.row}"><div class="labels">${said.labels.map(label => `<span>${label}</span>`).join("")}</div>`;
for (const [name, patient, healthy] of data.readings) {
  const button = document.createElement("button");
  button.textContent = name;
  button.addEventListener("click", () => {
    button.disabled = true;
    document.querySelector("tbody").insertAdjacentHTML(
      "beforeend", `<tr><td>${name}</td><td>${shown(patient)}</td><td>${shown(healthy)}</td></tr>`);
    const n = document.querySelectorAll("tbody tr").length;
    document.querySelector("#words").textContent = `${n} ${n === 1 ? "reading" : "readings"} taken`;
  });
  document.querySelector("#buttons").append(button);
}
