"""What an installed wheel must be able to do: load the sample, train the linear model, predict, draw and record.

Run it in an environment of its own, from any folder: `python -I smoke.py PACKAGE...`; these packages must be absent."""
import importlib.util
import sys

import matplotlib
import torch

from mnist_scratch.data import load_mnist
from mnist_scratch.ledger import record
from mnist_scratch.linear import LinearModel
from mnist_scratch.losses import cross_entropy
from mnist_scratch.plot import panel
from mnist_scratch.resnet import resnet_learner
from mnist_scratch.training import evaluate, fit

matplotlib.use("Agg")
present = [name for name in sys.argv[1:] if importlib.util.find_spec(name)]
assert not present, present
assert callable(resnet_learner)

torch.manual_seed(0)
mnist = load_mnist("sample", device="cpu")
model = LinearModel.random()
history = fit(model, mnist.train, mnist.valid, loss=cross_entropy, epochs=5, lr=0.1)
evaluation = evaluate(model, mnist.valid)
panel(evaluation, mnist.valid, history)
assert evaluation.accuracy > 0.8, evaluation.accuracy
predictions = model(mnist.test.images).argmax(1)
correct = (predictions == mnist.test.labels).float().mean().item()
assert correct > 0.8, correct
print(record("linear", model, evaluation, history.seconds, mnist.name))
