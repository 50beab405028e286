// `as_mnist` of notebook 08 in plain JavaScript, for drawings and photos. A picture is {height, width, data} with one
// number a pixel, 0 for black and 1 for white. Errors say what `DataError` says in Python.
const digits = (() => {
  const picture = (height, width, data = new Float32Array(height*width)) => ({height, width, data});
  const even = x => Math.abs(x % 1) === 0.5 ? 2*Math.round(x/2) : Math.round(x);  // as Python rounds
  const within = (x, low, high) => Math.min(Math.max(x, low), high);

  function turned({height, width, data}) {  // rows become columns
    const out = picture(width, height);
    data.forEach((value, i) => { out.data[(i % width)*height + Math.floor(i/width)] = value; });
    return out;
  }
  function everyRow(image, width, weightsFor) {  // a new row of `width`: sums of the old one from a place on
    const out = picture(image.height, width);
    for (let to = 0; to < width; to++) {
      const {from, weights} = weightsFor(to);
      for (let row = 0; row < image.height; row++) {
        let sum = 0;
        for (let i = 0; i < weights.length; i++) {  // beyond the edge the picture is its own mirror image
          const at = from + i, inside = at < 0 ? -1 - at : at >= image.width ? 2*image.width - 1 - at : at;
          sum += weights[i]*image.data[row*image.width + inside];
        }
        out.data[row*width + to] = sum;
      }
    }
    return out;
  }
  const wave = x => x === 0 ? 1 : Math.sin(Math.PI*x)/(Math.PI*x);
  const LANCZOS = [3, x => Math.abs(x) < 3 ? wave(x)*wave(x/3) : 0];  // how far it reaches, and its weights
  const BOX = [0.5, x => x > -0.5 && x <= 0.5 ? 1 : 0], BILINEAR = [1, x => Math.max(0, 1 - Math.abs(x))];
  function resizedRows(image, width, [reach, weigh]) {  // as Pillow does it
    const scale = image.width/width, wide = Math.max(scale, 1);
    return everyRow(image, width, to => {
      const centre = (to + 0.5)*scale, from = Math.max(0, Math.trunc(centre - reach*wide + 0.5));
      const end = Math.min(image.width, Math.trunc(centre + reach*wide + 0.5));
      const weights = Array.from({length: end - from}, (_, i) => weigh((from + i - centre + 0.5)/wide));
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      return {from, weights: weights.map(weight => weight/total)};
    });
  }
  const resized = (image, height, width, filter) => turned(resizedRows(turned(resizedRows(image, width, filter)), height, filter));
  function scaled(image, longest, filter) {  // its longest side then of `longest` pixels
    const side = length => Math.max(1, even(length*longest/Math.max(image.height, image.width)));
    return resized(image, side(image.height), side(image.width), filter);
  }

  function paperOf(grey) {  // how bright the paper is: the median of the surroundings, to a thousandth
    const small = scaled(grey, 80, BOX), {height, width} = small, levels = small.data.map(value => Math.round(1000*value));
    const median = picture(height, width);
    for (let row = 0; row < height; row++) {
      const counts = new Int32Array(1001);
      const column = (at, change) => {
        for (let r = row - 20; r <= row + 20; r++) counts[levels[within(r, 0, height - 1)*width + within(at, 0, width - 1)]] += change;
      };
      for (let at = -20; at < 20; at++) column(at, 1);
      for (let middle = 0; middle < width; middle++) {
        column(middle + 20, 1);
        let level = 0;
        for (let left = 841; (left -= counts[level]) > 0; level++);  // the middle one of 41 * 41
        median.data[row*width + middle] = level/1000;
        column(middle - 20, -1);
      }
    }
    return resized(median, grey.height, grey.width, BILINEAR);
  }
  function darker(grey, paper) {  // by what share of the paper; brighter, where it is chalk
    const isChalk = grey.data.reduce((sum, value, i) => sum + (value - paper.data[i])**3, 0) > 0;
    const own = value => isChalk ? 1 - value : value;
    return picture(grey.height, grey.width, grey.data.map((value, i) =>
      Math.max(0, own(paper.data[i]) - own(value))/Math.max(0.05, own(paper.data[i]))));
  }
  const bell = Array.from({length: 9}, (_, i) => Math.exp(-((i - 4)**2)/2)), total = bell.reduce((a, b) => a + b);
  const blurredRows = image => everyRow(image, image.width, to => ({from: to - 4, weights: bell.map(weight => weight/total)}));

  function findInk(grey) {  // 1 where there is ink, 0 where there is paper
    const ink = turned(blurredRows(turned(blurredRows(darker(grey, paperOf(grey))))));
    const sorted = ink.data.slice().sort(), place = 0.9999*(sorted.length - 1), below = Math.floor(place);
    const darkest = sorted[below] + (place - below)*(sorted[Math.min(below + 1, sorted.length - 1)] - sorted[below]);
    if (darkest < 0.15) throw new Error("there is no ink in it, or it is too pale.");
    return picture(ink.height, ink.width, ink.data.map(value => value > 0.4*darkest ? 1 : 0));
  }
  function partsOf({height, width, data}) {  // what hangs together, also over corners: the box and the places of each
    const seen = new Uint8Array(data.length), parts = [];
    data.forEach((value, start) => {
      if (!value || seen[start]) return;
      const places = [start], part = {top: height, bottom: 0, left: width, right: 0, places};
      seen[start] = 1;
      for (let next = 0; next < places.length; next++) {
        const row = Math.floor(places[next]/width), column = places[next] % width;
        Object.assign(part, {top: Math.min(part.top, row), bottom: Math.max(part.bottom, row + 1),
                             left: Math.min(part.left, column), right: Math.max(part.right, column + 1)});
        for (let r = Math.max(0, row - 1); r <= Math.min(height - 1, row + 1); r++) {
          for (let c = Math.max(0, column - 1); c <= Math.min(width - 1, column + 1); c++) {
            if (data[r*width + c] && !seen[r*width + c]) { seen[r*width + c] = 1; places.push(r*width + c); }
          }
        }
      }
      parts.push(part);
    });
    return parts;
  }
  function cutOut(ink) {  // the digit alone: the largest part, and what lies close to it
    const parts = partsOf(ink), most = Math.max(...parts.map(({places}) => places.length));
    const main = parts.find(({places}) => places.length === most);
    const longest = Math.max(main.bottom - main.top, main.right - main.left);
    const kept = parts.filter(part => {
      const apart = Math.max(main.top - part.bottom, part.top - main.bottom,
                             main.left - part.right, part.left - main.right, 0)/longest;
      const isTall = part.bottom - part.top > (main.bottom - main.top)/2 && part.places.length > most/10;
      if (isTall && apart > 0.05) throw new Error("there is more than one digit in it. Cut out one of them.");
      return apart <= 0.15;
    });
    const [top, left] = ["top", "left"].map(side => Math.min(...kept.map(part => part[side])));
    const [bottom, right] = ["bottom", "right"].map(side => Math.max(...kept.map(part => part[side])));
    const out = picture(bottom - top, right - left);
    for (const {places} of kept) for (const place of places) {
      out.data[(Math.floor(place/ink.width) - top)*out.width + place % ink.width - left] = 1;
    }
    return out;
  }
  function squaredDistances(numbers, n, offset, step) {  // along one line, to the lowest of parabolas that stand on it
    const feet = [], borders = [], heights = Array.from({length: n}, (_, i) => numbers[offset + i*step]);
    heights.forEach((height, i) => {
      if (height === Infinity) return;
      const meets = foot => (height + i*i - heights[foot] - foot*foot)/(2*(i - foot));
      while (feet.length && meets(feet.at(-1)) <= borders.at(-1)) { feet.pop(); borders.pop(); }
      borders.push(feet.length ? meets(feet.at(-1)) : -Infinity);
      feet.push(i);
    });
    for (let i = 0, foot = 0; feet.length && i < n; i++) {
      while (foot + 1 < feet.length && borders[foot + 1] < i) foot++;
      numbers[offset + i*step] = (i - feet[foot])**2 + heights[feet[foot]];
    }
  }
  function distances({height, width, data}, isGoal) {  // of every pixel to the nearest one with the goal's value
    const out = Float64Array.from(data, value => value === isGoal ? 0 : Infinity);
    for (let column = 0; column < width; column++) squaredDistances(out, height, column, width);
    for (let row = 0; row < height; row++) squaredDistances(out, width, row*width, 1);
    return out.map(Math.sqrt);
  }
  function thicken(ink) {  // strokes of at least a tenth of the digit's longest side
    const inside = distances(ink, 0).filter((_, i) => ink.data[i]);
    const width = 4*inside.reduce((sum, one) => sum + one, 0)/inside.length;
    const radius = (0.1*Math.max(ink.height, ink.width) - width)/2, rim = Math.trunc(radius) + 1;
    if (!(radius > 0)) return ink;
    const out = picture(ink.height + 2*rim, ink.width + 2*rim);
    ink.data.forEach((value, i) => { out.data[(Math.floor(i/ink.width) + rim)*out.width + i % ink.width + rim] = value; });
    out.data = Float32Array.from(distances(out, 1), distance => distance <= radius ? 1 : 0);
    return out;
  }
  const shown = image => picture(image.height, image.width, image.data.map(value => within(value, 0, 1)));
  const shrink = digit => shown(scaled(digit, 20, LANCZOS));  // each pixel as dark as it has ink
  function centre({height, width, data}) {  // in 28 by 28 pixels, its centre of mass at (14, 14)
    let mass = 0, row = 0, column = 0;
    data.forEach((ink, i) => { mass += ink; row += ink*Math.floor(i/width); column += ink*(i % width); });
    const top = within(14 - even(row/mass), 0, 28 - height), left = within(14 - even(column/mass), 0, 28 - width);
    const out = picture(28, 28);
    data.forEach((ink, i) => { out.data[(top + Math.floor(i/width))*28 + left + i % width] = ink; });
    return out;
  }
  const asMnist = grey => centre(shrink(thicken(cutOut(findInk(grey)))));
  function onlyResized(grey) {
    const small = shown(resized(grey, 28, 28, LANCZOS)), mean = small.data.reduce((sum, value) => sum + value)/784;
    return mean > 0.5 ? picture(28, 28, small.data.map(value => 1 - value)) : small;
  }
  // Moved by pixels, turned clockwise by degrees, strokes wider (or narrower) by pixels.
  function altered({data}, {right, down, turn, thicker}) {
    const cos = Math.cos(turn*Math.PI/180), sin = Math.sin(turn*Math.PI/180), out = picture(28, 28), spread = picture(28, 28);
    const at = (row, column) => row < 0 || column < 0 || row > 27 || column > 27 ? 0 : data[28*row + column];
    out.data.forEach((_, i) => {
      const x = i % 28 - 13.5 - right, y = Math.floor(i/28) - 13.5 - down;  // from a new place to the old one
      const oldX = cos*x + sin*y + 13.5, oldY = cos*y - sin*x + 13.5;
      const column = Math.floor(oldX), row = Math.floor(oldY), a = oldX - column, b = oldY - row;
      out.data[i] = (1 - b)*((1 - a)*at(row, column) + a*at(row, column + 1)) + b*((1 - a)*at(row + 1, column) + a*at(row + 1, column + 1));
    });
    const strongest = thicker > 0 ? Math.max : Math.min;  // paper spreads where ink shall not
    const near = at => [at - 1, at, at + 1].filter(one => one >= 0 && one < 28);
    out.data.forEach((_, i) => {
      const around = near(Math.floor(i/28)).flatMap(row => near(i % 28).map(column => out.data[28*row + column]));
      spread.data[i] = strongest(...around);
    });
    return picture(28, 28, out.data.map((value, i) => value + Math.abs(thicker)/2*(spread.data[i] - value)));
  }
  return {picture, asMnist, onlyResized, altered};
})();
