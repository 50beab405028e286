"""The engine of 09 in JavaScript against Python's numbers: by Node where there is one, and in a page from a file."""
import json
import shutil
import subprocess

import pytest
import torch
from conftest import ROOT
from playground import layers

from mnist_scratch.autograd import Tensor, batch_norm, conv2d, max_pool
from mnist_scratch.checks import unchecked
from mnist_scratch.convnet import ConvNet
from mnist_scratch.data import load_mnist
from mnist_scratch.losses import cross_entropy
from mnist_scratch.nets import TwoLayerNet
from mnist_scratch.training import minibatches

SOURCE = (ROOT / "mnist_scratch/web/engine.js").read_text(encoding="utf-8")
NODE = shutil.which("node") or shutil.which("nodejs")
needs_node = pytest.mark.skipif(NODE is None, reason="needs Node.js")
# Ten epochs of the two-layer net in batches of 64; then its answers to other images.
TRAIN = """
function train({parameters, images, labels, orders, others}) {
  const own = parameters.map(([data, shape]) => engine.tensor(data, shape, true)), losses = [];
  const pixels = images.map(row => Float32Array.from(row, value => Math.fround(value/255)));
  for (const order of orders) {
    let total = 0;
    for (let i = 0; i < order.length; i += 64) {
      const batch = order.slice(i, i + 64), x = new Float32Array(784*batch.length);
      batch.forEach((place, row) => x.set(pixels[place], 784*row));
      const logits = engine.twoLayer(own, engine.tensor(x, [batch.length, 784]));
      const loss = engine.crossEntropy(logits, batch.map(place => labels[place]));
      loss.backward();
      engine.step(own, 2);
      total += loss.data[0]*batch.length;
    }
    losses.push(total/order.length);
  }
  const logits = engine.twoLayer(own, engine.tensor(others.flat().map(value => value/255), [others.length, 784])).data;
  const answers = others.map((_, i) => {
    const row = [...logits.slice(10*i, 10*i + 10)];
    return row.indexOf(Math.max(...row));
  });
  return {losses, answers};
}
"""


def node(program: str, data) -> dict:
    "What `program`, a function of the data, gives."
    whole = f"{SOURCE}\n{TRAIN}\nconst data = JSON.parse(require('fs').readFileSync(0, 'utf8'));\n"
    whole += f"console.log(JSON.stringify(({program})(data), (_, one) => ArrayBuffer.isView(one) ? [...one] : one));"
    done = subprocess.run([NODE, "-e", whole], input=json.dumps(data), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def listed(tensor: torch.Tensor) -> list:
    return [tensor.flatten().tolist(), list(tensor.shape)]


def close(got: list, wanted: torch.Tensor) -> bool:
    return (torch.tensor(got, dtype=torch.float64) - wanted.flatten()).abs().max() <= 1e-12


@needs_node
def test_gradients_of_the_two_layer_net_are_pythons():
    generator = torch.Generator().manual_seed(0)
    own = [one.detach().double() for one in TwoLayerNet(n_hidden=7).parameters()]
    images, labels = torch.rand(5, 784, generator=generator, dtype=torch.float64), [3, 1, 4, 1, 5]
    w1, b1, w2, b2 = tensors = list(map(Tensor, own))
    with unchecked():
        loss = cross_entropy((images @ w1.T + b1).sigmoid() @ w2.T + b2, torch.tensor(labels))
    loss.backward()
    got = node("""({own, images, labels}) => {
      engine.precise(true);
      const parameters = own.map(([data, shape]) => engine.tensor(data, shape, true));
      const loss = engine.crossEntropy(engine.twoLayer(parameters, engine.tensor(...images)), labels);
      loss.backward();
      return [loss.data, ...parameters.map(one => one.grad)];
    }""", {"own": list(map(listed, own)), "images": listed(images), "labels": labels})
    assert close(got[0], loss.data)
    assert all(close(grad, one.grad) for grad, one in zip(got[1:], tensors, strict=True))


@needs_node
def test_gradients_of_windows_pooling_and_norm_are_pythons():
    generator = torch.Generator().manual_seed(0)
    numbers = [torch.rand(shape, generator=generator, dtype=torch.float64)
               for shape in ((3, 2, 9, 8), (4, 2, 3, 3), (4,), (4,), (5, 4, 2, 2))]
    x, w, scale, shift, strided = tensors = list(map(Tensor, numbers))
    end = conv2d(batch_norm(max_pool(conv2d(x, w)), scale, shift).relu(), strided, stride=2).square().mean()
    end.backward()
    got = node("""numbers => {
      engine.precise(true);
      const [x, w, scale, shift, strided] = own = numbers.map(([data, shape]) => engine.tensor(data, shape, true));
      const norm = engine.relu(engine.batchNorm(engine.maxPool(engine.conv2d(x, w)), scale, shift));
      const last = engine.conv2d(norm, strided, 2), end = engine.mean(engine.multiply(last, last));
      end.backward();
      return [end.data, ...own.map(one => one.grad)];
    }""", list(map(listed, numbers)))
    assert close(got[0], end.data)
    assert all(close(grad, one.grad) for grad, one in zip(got[1:], tensors, strict=True))


@needs_node
def test_broadcasting_quotients_and_what_cannot_work():
    got = node("""() => {
      engine.precise(true);
      const a = engine.tensor([1, 2, 3], [3, 1], true), b = engine.tensor([4, 5], [2], true);
      const quotient = engine.divide(engine.exp(a), b);
      const end = engine.sum(engine.subtract(engine.log(quotient), engine.sqrt(b)));
      const errors = [() => quotient.backward(), () => engine.add(a, engine.tensor([1, 2], [2, 1]))].map(wrong => {
        try { wrong(); } catch (error) { return error.message; }
      });
      end.backward();
      try { end.backward(); } catch (error) { errors.push(error.message); }
      return {errors, a: a.grad, b: b.grad};
    }""", None)
    a = torch.tensor([[1.0], [2], [3]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([4.0, 5], dtype=torch.float64, requires_grad=True)
    ((a.exp()/b).log() - b.sqrt()).sum().backward()
    assert close(got["a"], a.grad) and close(got["b"], b.grad)
    assert got["errors"] == ["backward() needs one number, not [3,2]", "[3,1] and [2,1] do not fit",
                             "backward() was here before and has cut the edges"]


def task(sample_folder, n_epochs: int = 10) -> tuple[dict, TwoLayerNet, list]:
    "What `train` wants, and the same net trained by PyTorch with its losses."
    mnist, net = load_mnist(sample_folder, device="cpu"), TwoLayerNet()
    images, labels = (torch.cat(parts) for parts in zip(mnist.train[:], mnist.valid[:]))  # 4,000
    generator = torch.Generator().manual_seed(0)
    orders = [list(minibatches(len(labels), 64, generator)) for _ in range(n_epochs)]
    data = {"parameters": [listed(one.detach()) for one in net.parameters()], "labels": labels.tolist(),
            "images": (255*images).round().int().flatten(1).tolist(),
            "orders": [torch.cat(one).tolist() for one in orders],
            "others": (255*mnist.test.images).round().int().flatten(1).tolist()}
    descent, losses = torch.optim.SGD(net.parameters(), lr=2.0), []
    for order in orders:
        total = 0.0
        for batch in order:
            loss = cross_entropy(net(images[batch]), labels[batch])
            descent.zero_grad()
            loss.backward()
            descent.step()
            total += loss.item()*len(batch)
        losses.append(total/len(labels))
    with torch.no_grad():
        answers = net(mnist.test.images).argmax(1)
    return data, losses, answers, mnist.test.labels


@needs_node
def test_ten_epochs_in_single_precision_end_where_pytorchs_do(sample_folder):
    data, losses, answers, _ = task(sample_folder)
    got = node("train", data)
    assert got["losses"] == pytest.approx(losses, abs=1e-6) and got["answers"] == answers.tolist()


@needs_node
def test_the_convolutional_net_of_07_answers_as_in_python(sample_folder):
    net = ConvNet((4, 6, 8), seed=1).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2)
    images = load_mnist(sample_folder, device="cpu").test.images[::50]
    got = node("""({layers, images}) => {
      const own = layers.map(layer => Object.fromEntries(Object.entries(layer).map(([name, value]) =>
        [name, Array.isArray(value) ? engine.tensor(...value) : value])));
      return engine.convNet(own, engine.tensor(...images)).data;
    }""", {"layers": layers(net, listed), "images": listed(images.flatten(1))})
    with torch.no_grad():
        assert torch.allclose(torch.tensor(got).view(-1, 10), net(images), atol=1e-4)


def test_a_page_opened_from_a_file_learns(page, sample_folder, tmp_path):
    data, _, _, labels = task(sample_folder)
    page_file = tmp_path / "page.html"
    page_file.write_text(f"<!doctype html><meta charset=utf-8><script>{SOURCE}{TRAIN}</script><script>"
                         f"const result = train({json.dumps(data)});</script>", encoding="utf-8")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    result = page.evaluate("result")
    assert len(asked) == 1, "nobody is asked for anything"
    assert (torch.tensor(result["answers"]) == labels).float().mean() >= 0.92
