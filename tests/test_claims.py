"""The figures that the series claims, each calculated again: a test fails where the code under a figure is wrong."""
import re

import pytest
import torch
from conftest import ROOT
from torch import nn

from mnist_scratch.baseline import NearestMean, mae_distance, mse_distance, pixel_means
from mnist_scratch.convnet import PIXEL_MEAN, PIXEL_STD, RandomShift, train
from mnist_scratch.data import Digits, load_mnist
from mnist_scratch.linear import LinearModel, linear_from_means
from mnist_scratch.losses import compare, cross_entropy, sigmoid_mse, softmax_mse
from mnist_scratch.nets import TwoLayerNet
from mnist_scratch.training import evaluate, fit


@pytest.fixture(scope="module")
def mnist(full_folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:  # it runs before `own_folders`, which is for one test
        patch.setenv("MNIST_SCRATCH_CACHE", str(tmp_path_factory.mktemp("claims_cache")))
        return load_mnist(full_folder, device="cpu")


@pytest.mark.parametrize("distance, total, by_digit", [
    (mae_distance, 0.6685, [0.8153, 0.9982, 0.4234, 0.6089, 0.6680, 0.3262, 0.7871, 0.7646, 0.4425, 0.7760]),
    (mse_distance, 0.8203, [0.8959, 0.9621, 0.7568, 0.8059, 0.8259, 0.6861, 0.8633, 0.8327, 0.7372, 0.8067])])
def test_the_figures_of_the_post_to_the_digit(mnist, distance, total, by_digit):
    "Its protocol: means of all 60,000 training images, measured on the 10,000 test images."
    images = torch.cat([mnist.train.images, mnist.valid.images])
    means = pixel_means(images, torch.cat([mnist.train.labels, mnist.valid.labels]))
    found = evaluate(NearestMean(means, distance), mnist.test)
    assert [round(accuracy, 4) for accuracy in [*found.per_digit.tolist(), found.accuracy]] == [*by_digit, total]


def test_the_baseline_the_linear_model_that_is_the_same_and_one_step_from_nothing(mnist):
    nearest = evaluate(model := NearestMean.from_digits(mnist.train), mnist.valid)
    same = evaluate(linear_from_means(model.means), mnist.valid).predicted == nearest.predicted
    assert round(nearest.accuracy, 4) == 0.8063
    assert same.sum() >= 9_999, "float32 may decide one close contest otherwise"
    # One step from zero: all logits scale with the rate, so no answer can change.
    images, targets = mnist.train.images.flatten(1), torch.eye(10)[mnist.train.labels]
    for rate in (2/targets.numel()*factor for factor in (0.01, 0.1, 1.0)):
        step = LinearModel(rate*targets.T @ images, rate*targets.sum(0))
        assert round(evaluate(step, mnist.valid).accuracy, 4) == 0.6731


def learned(mnist, model, loss, epochs, lr):
    return fit(model, mnist.train, mnist.valid, loss=loss, epochs=epochs, lr=lr).valid_accuracy[-1]


@pytest.mark.parametrize("loss, lr, floor", [(sigmoid_mse, 10, .9), (softmax_mse, 10, .91), (cross_entropy, .1, .905)])
def test_ten_epochs_of_each_loss_from_a_small_start(mnist, loss, lr, floor):
    assert floor < learned(mnist, LinearModel.random(), loss, 10, lr) < floor + 0.015


def test_a_hundred_steps_pass_the_averages_and_a_rate_that_is_too_large_flies_away(mnist):
    def accuracies(rate: float, steps: int) -> list[float]:
        model, targets, found = LinearModel.random(std=0.0), torch.eye(10)[mnist.train.labels], []
        for _ in range(steps):
            (model(mnist.train.images) - targets).square().mean().backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= rate*parameter.grad
                    parameter.grad = None
            found.append(evaluate(model, mnist.valid).accuracy)
        return found
    assert accuracies(0.2, 20)[-1] < 0.8063 < accuracies(0.2, 22)[-1] and accuracies(0.3, 8)[-1] < 0.6
    assert [round(value, 3) for value in accuracies(1.0, 2)] == [0.673, 0.115]


def test_in_fair_shoes_softmax_with_squares_beats_cross_entropy_in_each_of_five_pairs(mnist):
    for seed in range(5):
        right = []
        for loss, lr in ((softmax_mse, 10.0), (cross_entropy, 0.3)):
            settings = {"loss": loss, "epochs": 10, "lr": lr, "seed": seed}
            fit(model := LinearModel.random(seed=seed), mnist.train, mnist.valid, **settings)
            right.append(evaluate(model, mnist.valid).right)
        assert compare(*right).z > 2.5


def test_a_thousand_images_are_learned_by_heart_the_validation_loss_turns_around_and_moved_images_cure_it(mnist):
    few, net, settings = Digits(*mnist.train[::50]), TwoLayerNet(), {"loss": cross_entropy, "epochs": 200, "lr": 1.0}
    losses = fit(net, few, mnist.valid, batch_size=64, **settings).valid_loss
    assert 10 < losses.index(min(losses)) < 40 and losses[-1] > 1.2*min(losses)
    assert evaluate(net, few).accuracy == 1 and 0.86 < evaluate(net, mnist.valid).accuracy < 0.9
    torch.manual_seed(0)
    layers = [RandomShift(2), nn.Flatten(), nn.Linear(784, 64), nn.Sigmoid(), nn.Linear(64, 10)]
    history = fit(nn.Sequential(*layers), few, mnist.valid, batch_size=64, **settings)
    assert history.valid_loss[-1] < 0.3 and history.valid_accuracy[-1] > 0.91


def test_a_large_start_made_squared_errors_slow_two_layers_pass_95_and_the_fast_recipe_98_in_a_hundred(mnist):
    assert learned(mnist, LinearModel.random(std=1.0), sigmoid_mse, 3, 1.0) < 0.35
    assert learned(mnist, LinearModel.random(std=0.01), sigmoid_mse, 3, 1.0) > 0.86
    history = fit(TwoLayerNet(), mnist.train, mnist.valid, loss=cross_entropy, epochs=10, lr=1.0)
    assert 0.945 < history.valid_accuracy[-1] < 0.97 and history.train_loss[0] < 1.2
    net = train(mnist, "fast")
    assert evaluate(net, mnist.valid).accuracy > 0.985 and sum(p.numel() for p in net.parameters()) == 29_514


def test_pixels_and_the_loss_of_a_model_that_knows_nothing_which_is_the_logarithm_of_ten(mnist):
    assert torch.stack(torch.std_mean(mnist.train.images)).tolist() == pytest.approx([PIXEL_STD, PIXEL_MEAN], abs=5e-4)
    images, labels = mnist.train[torch.arange(0, 50_000, 50)]  # of every digit
    assert cross_entropy(LinearModel.random(std=0.0)(images), labels).item() == pytest.approx(2.302585, abs=1e-5)
    assert cross_entropy(TwoLayerNet()(images), labels) < 2.6 < 8 < cross_entropy(LinearModel.random(1)(images), labels)


def test_what_the_readme_says_its_example_prints(mnist):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = next(block for block in re.findall(r"```python\n(.*?)```", readme, re.S) if "TwoLayerNet" in block)
    exec(code.replace("load_mnist()", "loaded").split("print(")[0], scope := {"loaded": mnist})
    said, error = map(float, re.search(r"it prints `([\d.]+) ± ([\d.]+)`", readme).groups())
    assert scope["evaluation"].accuracy == pytest.approx(said, abs=0.003)
    assert scope["evaluation"].error_bar == pytest.approx(error, abs=1e-4)
