// The engine of notebook 09 in plain JavaScript: tensors that remember how they came about, and two nets of the series.
// It is short because broadcasting, transposing, picking, windows and sums are one thing, a map of indices: a result
// collects numbers by the map, and the gradients are scattered back by it; a sum is the same the other way round.
const engine = (() => {
  let Numbers = Float32Array, births = 0;
  const maps = new Map(), sizeOf = shape => shape.reduce((product, side) => product*side, 1);

  class Tensor {  // `edges`: pairs of an input and the rule for its gradient
    constructor(data, shape, edges = [], learns = edges.length > 0) {
      Object.assign(this, {data, shape, edges, learns, born: births++, grad: null});
    }
    backward() {
      if (this.data.length !== 1) throw new Error(`backward() needs one number, not [${this.shape}]`);
      if (!this.edges) throw new Error("backward() was here before and has cut the edges");
      const found = new Set([this]), unseen = [this];
      while (unseen.length) for (const [input] of unseen.pop().edges) {
        if (!found.has(input)) { found.add(input); unseen.push(input); }
      }
      this.grad = Numbers.of(1);
      for (const tensor of [...found].sort((one, other) => other.born - one.born)) {  // the youngest first
        for (const [input, rule] of tensor.edges) {
          const more = rule(tensor.grad);
          input.grad = input.grad ? input.grad.map((number, i) => number + more[i]) : more;
        }
        if (tensor.edges.length) tensor.edges = tensor.grad = null;  // their memory is free again
      }
    }
  }
  const tensor = (data, shape, learns = false) => new Tensor(Numbers.from(data), shape, [], learns);
  const result = (data, shape, edges) => new Tensor(data, shape, edges.filter(([input]) => input.learns));

  // Indices for every place of a tensor of this shape: the sum of its coordinates, each times its stride.
  function mapOf(shape, strides) {
    const key = `${shape};${strides}`;
    if (maps.has(key)) return maps.get(key);
    let map = Int32Array.of(0);
    shape.forEach((side, axis) => {
      const longer = new Int32Array(map.length*side);
      map.forEach((start, i) => { for (let j = 0; j < side; j++) longer[i*side + j] = start + j*strides[axis]; });
      map = longer;
    });
    if (maps.size > 200) maps.clear();
    maps.set(key, map);
    return map;
  }
  const stridesOf = shape => shape.map((_, axis) => sizeOf(shape.slice(axis + 1)));

  const gathered = (numbers, map) => new Numbers(map.length).map((_, i) => numbers[map[i]]);
  function scattered(numbers, map, size) {
    const out = new Numbers(size);
    for (let i = 0; i < map.length; i++) out[map[i]] += numbers[i];
    return out;
  }
  const collect = (x, map, shape) => result(gathered(x.data, map), shape, [[x, g => scattered(g, map, x.data.length)]]);
  const strided = (x, shape, strides) => collect(x, mapOf(shape, strides), shape);
  const reshape = (x, shape) => result(x.data, shape, [[x, g => g]]);
  const transpose = x => strided(x, [x.shape[1], x.shape[0]], [1, x.shape[1]]);
  const pick = (x, labels) => collect(x, Int32Array.from(labels, (label, i) => i*x.shape[1] + label), [labels.length]);

  function broadcast(x, shape) {
    if (`${x.shape}` === `${shape}`) return x;
    const own = [...Array(shape.length - x.shape.length).fill(1), ...x.shape], strides = stridesOf(own);
    return strided(x, shape, strides.map((stride, axis) => own[axis] === 1 ? 0 : stride));
  }
  function binary(value, ruleOfOne, ruleOfOther) {  // with broadcasting
    return (one, other) => {
      if (typeof other === "number") other = tensor([other], []);
      const n = Math.max(one.shape.length, other.shape.length);
      const shape = Array.from({length: n}, (_, axis) => {
        const [a, b] = [one, other].map(({shape}) => shape[axis - n + shape.length] ?? 1);
        if (a !== b && a !== 1 && b !== 1) throw new Error(`[${one.shape}] and [${other.shape}] do not fit`);
        return a === 1 ? b : a;
      });
      const [x, y] = [broadcast(one, shape), broadcast(other, shape)], [a, b] = [x.data, y.data];
      return result(a.map((number, i) => value(number, b[i])), shape, [
        [x, g => g.map((slope, i) => ruleOfOne(slope, a[i], b[i]))],
        [y, g => g.map((slope, i) => ruleOfOther(slope, a[i], b[i]))]]);
    };
  }
  const add = binary((a, b) => a + b, g => g, g => g), subtract = binary((a, b) => a - b, g => g, g => -g);
  const multiply = binary((a, b) => a*b, (g, a, b) => g*b, (g, a) => g*a);
  const divide = binary((a, b) => a/b, (g, a, b) => g/b, (g, a, b) => -g*(a/b/b));

  function unary(value, rule) {  // the rule knows gradient, input and value
    return x => {
      const data = x.data.map(value);
      return result(data, x.shape, [[x, g => g.map((slope, i) => rule(slope, x.data[i], data[i]))]]);
    };
  }
  const exp = unary(Math.exp, (g, x, y) => g*y), log = unary(Math.log, (g, x) => g/x);
  const sigmoid = unary(x => 1/(1 + Math.exp(-x)), (g, x, y) => g*(1 - y)*y);
  const relu = unary(x => x > 0 ? x : 0, (g, x) => x > 0 ? g : 0), sqrt = unary(Math.sqrt, (g, x, y) => g/(2*y));

  const mapOntoKept = (x, axes) => {  // and the shape that is left, with axes of length 1
    const kept = x.shape.map((side, axis) => axes.includes(axis) ? 1 : side), strides = stridesOf(kept);
    return [mapOf(x.shape, strides.map((stride, axis) => axes.includes(axis) ? 0 : stride)), kept];
  };
  function sum(x, axes = x.shape.map((_, axis) => axis)) {
    const [map, kept] = mapOntoKept(x, axes);
    return result(scattered(x.data, map, sizeOf(kept)), kept, [[x, g => gathered(g, map)]]);
  }
  const mean = (x, axes) => { const total = sum(x, axes); return divide(total, x.data.length/total.data.length); };
  function max(x, axes) {  // of equals the first gets the gradient
    const [map, kept] = mapOntoKept(x, axes), winners = new Int32Array(sizeOf(kept)).fill(-1);
    map.forEach((to, i) => { if (winners[to] < 0 || x.data[i] > x.data[winners[to]]) winners[to] = i; });
    return collect(x, winners, kept);
  }

  function product(a, b, n, p, k) {  // n p @ p k; what is 0 is skipped
    const out = new Numbers(n*k);
    for (let i = 0; i < n; i++) for (let j = 0; j < p; j++) {
      const number = a[i*p + j], row = j*k, to = i*k;
      if (number) for (let l = 0; l < k; l++) out[to + l] += number*b[row + l];
    }
    return out;
  }
  function matmul(x, y) {
    const [n, p] = x.shape, k = y.shape[1];
    return result(product(x.data, y.data, n, p, k), [n, k], [
      [x, g => product(g, transpose(y).data, n, k, p)], [y, g => product(transpose(x).data, g, p, n, k)]]);
  }
  const linear = (x, weights, biases) => add(matmul(x, transpose(weights)), biases);

  function conv2d(x, weights, stride = 1) {  // n c h w and k c size size, as one matrix product
    const [n, c, h, w] = x.shape, [k, , size] = weights.shape;
    const [down, right] = [h, w].map(side => Math.floor((side - size)/stride) + 1);
    const rows = strided(x, [n, down, right, c, size, size], [c*h*w, stride*w, stride, h*w, w, 1]);
    const sums = matmul(reshape(rows, [n*down*right, c*size*size]), transpose(reshape(weights, [k, c*size*size])));
    return strided(sums, [n, k, down, right], [down*right*k, 1, right*k, k]);
  }
  function maxPool(x) {
    const [n, c, h, w] = x.shape, [down, right] = [h >> 1, w >> 1];
    return reshape(max(strided(x, [n, c, down, right, 2, 2], [c*h*w, h*w, 2*w, 2, w, 1]), [4, 5]), [n, c, down, right]);
  }
  function batchNorm(x, scale, shift) {
    const wide = one => reshape(one, [1, one.shape[0], 1, 1]), apart = subtract(x, mean(x, [0, 2, 3]));
    const deviation = sqrt(add(mean(multiply(apart, apart), [0, 2, 3]), 1e-5));
    return add(multiply(divide(apart, deviation), wide(scale)), wide(shift));
  }
  function logSoftmax(logits) {
    const shifted = subtract(logits, tensor(max(logits, [1]).data, [logits.shape[0], 1]));
    return subtract(shifted, log(sum(exp(shifted), [1])));
  }
  const crossEntropy = (logits, labels) => multiply(mean(pick(logSoftmax(logits), labels)), -1);

  const twoLayer = ([w1, b1, w2, b2], images, bend = sigmoid) => linear(bend(linear(images, w1, b1)), w2, b2);
  function convNet(layers, images) {  // as in 07, in use: windows, some with a pooling or a norm; the last is linear
    let x = divide(subtract(reshape(images, [images.shape[0], 1, 28, 28]), 0.1307), 0.3081);
    for (const {weights, biases, stride, pool, scale, shift} of layers.slice(0, -1)) {
      x = add(conv2d(x, weights, stride), reshape(biases, [1, biases.shape[0], 1, 1]));
      if (pool) x = maxPool(x);
      x = relu(scale ? add(multiply(x, scale), shift) : x);
    }
    return linear(reshape(x, [x.shape[0], sizeOf(x.shape.slice(1))]), layers.at(-1).weights, layers.at(-1).biases);
  }
  function step(parameters, rate) {
    for (const {data, grad} of parameters) for (let i = 0; i < data.length; i++) data[i] -= rate*grad[i];
    for (const one of parameters) one.grad = null;
  }
  return {tensor, add, subtract, multiply, divide, exp, log, sigmoid, relu, sqrt, sum, mean, max, matmul, transpose,
          reshape, pick, linear, conv2d, maxPool, batchNorm, logSoftmax, crossEntropy, twoLayer, convNet, step,
          precise(yes) { Numbers = yes ? Float64Array : Float32Array; }};
})();
