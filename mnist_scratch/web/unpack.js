// What the website's pages need before anything else: the numbers and the images that PLAYGROUND holds as text.
const bytes = text => Uint8Array.from(atob(text), sign => sign.charCodeAt(0));
async function unpackedImages() {  // pixels from 0 to 1, 784 an image
  const stream = new Blob([bytes(PLAYGROUND.images)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return Float32Array.from(new Uint8Array(await new Response(stream).arrayBuffer()), value => value/255);
}
