"""Train the nets of the website's first page, and write them beside the images that a net learns from there.

    python scripts/playground.py FILE

The nets learn from the images that MNIST_SCRATCH_DATA names, like everywhere; the page's own net from the sample."""
import json
import sys
import zlib
from base64 import b64encode
from pathlib import Path

import torch
from torch import Tensor, nn

from mnist_scratch.baseline import NearestMean
from mnist_scratch.convnet import ConvNet, train
from mnist_scratch.data import MNIST, load_mnist
from mnist_scratch.linear import LinearModel
from mnist_scratch.losses import cross_entropy, softmax_mse
from mnist_scratch.nets import TwoLayerNet
from mnist_scratch.pictures import STROKES
from mnist_scratch.training import evaluate, fit


class Numbers:
    "Tensors as whole numbers of 16 bits, one after the other: a third of the letters, and no answer changes."

    def __init__(self):
        self.kept, self.size = [], 0

    def put(self, tensor: Tensor) -> dict:
        "Where it begins, its shape, and what every number is to be multiplied by."
        tensor = tensor.detach().cpu().contiguous()
        scale = max(tensor.abs().max().item()/32767, 1e-12)
        self.kept.append((tensor/scale).round().to(torch.int16).flatten())
        self.size += tensor.numel()
        return {"at": self.size - tensor.numel(), "shape": list(tensor.shape), "scale": scale}

    def text(self) -> str:
        return b64encode(torch.cat(self.kept).numpy().astype("<i2").tobytes()).decode()


def layers(net: ConvNet, put) -> list[dict]:
    "For `engine.convNet`: each batch norm, as it is in use, a scale and a shift. `put` says what becomes of a tensor."
    layers = []
    for module in net.network:
        if isinstance(module, nn.Conv2d):
            layers.append({"weights": put(module.weight), "biases": put(module.bias), "stride": module.stride[0]})
        elif isinstance(module, nn.MaxPool2d):
            layers[-1]["pool"] = True
        elif isinstance(module, nn.BatchNorm2d):
            scale = module.weight/(module.running_var + module.eps).sqrt()
            layers[-1]["scale"] = put(scale.view(1, -1, 1, 1))
            layers[-1]["shift"] = put((module.bias - scale*module.running_mean).view(1, -1, 1, 1))
        elif isinstance(module, nn.Linear):
            layers.append({"weights": put(module.weight), "biases": put(module.bias)})
    return layers


def models(mnist: MNIST) -> tuple[dict, str]:
    "Trained as in 08, and what they learned from."
    device = mnist.train.images.device
    linear, two_layer = LinearModel.random(device=device), TwoLayerNet(device=device)
    fit(linear, mnist.train, mnist.valid, loss=softmax_mse, epochs=10, lr=10.0)
    fit(two_layer, mnist.train, mnist.valid, loss=cross_entropy, epochs=10, lr=1.0)
    nets = {"means": NearestMean.from_digits(mnist.train), "linear": linear, "twoLayer": two_layer,
            "convNet": train(mnist, "balanced").eval()}
    for name, net in nets.items():
        print(f"{name}: {evaluate(net, mnist.valid).accuracy:.4f} of the validation images")
    n = len(mnist.train)
    return nets, f"{n:,} images" if mnist.name == "full" else f"{n:,} images of MNIST ({mnist.name}), not all of them"


def page_data(nets: dict, learned_from: str) -> str:
    "The script that the page loads: the nets, the sample's training and validation images, and strokes of ten digits."
    numbers, sample = Numbers(), load_mnist("sample", device="cpu")
    generator = torch.Generator().manual_seed(0)  # in any order: the first few are some of each digit
    orders = [torch.randperm(len(part), generator=generator) for part in (sample.train, sample.valid)]
    images, labels = (torch.cat(parts) for parts in zip(sample.train[orders[0]], sample.valid[orders[1]]))
    packed = {name: [numbers.put(one) for one in net.parameters()] for name, net in nets.items() if name != "convNet"}
    packed |= {"means": numbers.put(nets["means"].means.flatten(1)), "convNet": layers(nets["convNet"], numbers.put)}
    pixels = (255*images).round().byte().numpy().tobytes()
    data = {"nets": packed, "numbers": numbers.text(), "images": b64encode(zlib.compress(pixels, 9)).decode(),
            "labels": "".join(map(str, labels.tolist())), "examples": STROKES, "learnedFrom": learned_from}
    return f"const PLAYGROUND = {json.dumps(data)};\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page_data(*models(load_mnist())), encoding="utf-8")
