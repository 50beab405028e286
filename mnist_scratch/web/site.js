// What two pages of the website share: the images that PLAYGROUND holds as text, chance, and a layer that learns.
const bytes = text => Uint8Array.from(atob(text), sign => sign.charCodeAt(0));
async function unpackedImages() {  // pixels from 0 to 1, 784 an image
  const stream = new Blob([bytes(PLAYGROUND.images)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return Float32Array.from(new Uint8Array(await new Response(stream).arrayBuffer()), value => value/255);
}
const places = (from, count) => Array.from({length: count}, (_, i) => from + i);
const shuffled = list => list.map(one => [Math.random(), one]).sort(([a], [b]) => a - b).map(([, one]) => one);
const normal = () => Math.sqrt(-2*Math.log(1 - Math.random()))*Math.cos(2*Math.PI*Math.random());
function layer(n_in, n_out, deviation) {  // weights of this standard deviation, biases 0
  return [engine.tensor(Array.from({length: n_in*n_out}, () => deviation*normal()), [n_out, n_in], true),
          engine.tensor(new Float32Array(n_out), [n_out], true)];
}
