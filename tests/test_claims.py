"""The figures that the series claims, each calculated again: a test fails where the code under a figure is wrong."""
import pytest
import torch

from mnist_scratch.baseline import NearestMean, mae_distance, mse_distance, pixel_means
from mnist_scratch.convnet import PIXEL_MEAN, PIXEL_STD, train
from mnist_scratch.data import load_mnist
from mnist_scratch.linear import LinearModel, linear_from_means
from mnist_scratch.losses import cross_entropy, sigmoid_mse, softmax_mse
from mnist_scratch.nets import TwoLayerNet
from mnist_scratch.training import evaluate, fit

POST = {  # the post's protocol: means of all 60,000 training images, measured on the 10,000 test images
    mae_distance: [0.8153, 0.9982, 0.4234, 0.6089, 0.6680, 0.3262, 0.7871, 0.7646, 0.4425, 0.7760],
    mse_distance: [0.8959, 0.9621, 0.7568, 0.8059, 0.8259, 0.6861, 0.8633, 0.8327, 0.7372, 0.8067],
}


@pytest.fixture(scope="module")
def mnist(full_folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:  # it runs before `own_folders`, which is for one test
        patch.setenv("MNIST_SCRATCH_CACHE", str(tmp_path_factory.mktemp("claims_cache")))
        return load_mnist(full_folder, device="cpu")


@pytest.mark.parametrize("distance, total", [(mae_distance, 0.6685), (mse_distance, 0.8203)], ids=["mae", "mse"])
def test_the_figures_of_the_post_to_the_digit(mnist, distance, total):
    images = torch.cat([mnist.train.images, mnist.valid.images])
    means = pixel_means(images, torch.cat([mnist.train.labels, mnist.valid.labels]))
    found = evaluate(NearestMean(means, distance), mnist.test)
    assert [round(accuracy, 4) for accuracy in found.per_digit.tolist()] == POST[distance]
    assert round(found.accuracy, 4) == total


def test_the_baseline_and_the_linear_model_that_is_the_same(mnist):
    means = pixel_means(mnist.train.images, mnist.train.labels)
    nearest = evaluate(NearestMean(means), mnist.valid)
    assert round(nearest.accuracy, 4) == 0.8063
    same = evaluate(linear_from_means(means.double().float()), mnist.valid).predicted == nearest.predicted
    assert same.sum() >= 9_999, "float32 may decide one close contest otherwise"


def test_one_step_from_nothing_reads_two_thirds_at_any_rate(mnist):
    "From zero all logits scale with the rate, so no answer can change."
    images, targets = mnist.train.images.flatten(1), torch.eye(10)[mnist.train.labels]
    weights, biases = -2*targets.T @ images/targets.numel(), -2*targets.sum(0)/targets.numel()
    answers = [evaluate(LinearModel(-rate*weights, -rate*biases), mnist.valid) for rate in (0.01, 0.1, 1.0)]
    assert [round(one.accuracy, 4) for one in answers] == [0.6731]*3


def test_pixels_of_the_training_images(mnist):
    images = mnist.train.images
    assert images.mean().item() == pytest.approx(PIXEL_MEAN, abs=5e-4)
    assert images.std().item() == pytest.approx(PIXEL_STD, abs=5e-4)


@pytest.mark.parametrize("loss, rate, floor", [(sigmoid_mse, 10.0, 0.90), (softmax_mse, 10.0, 0.91),
                                               (cross_entropy, 0.1, 0.905)], ids=lambda value: str(value)[:22])
def test_ten_epochs_of_each_loss_from_a_small_start(mnist, loss, rate, floor):
    history = fit(LinearModel.random(), mnist.train, mnist.valid, loss=loss, epochs=10, lr=rate)
    assert floor < history.valid_accuracy[-1] < floor + 0.015


def test_a_large_start_is_what_made_squared_errors_slow(mnist):
    reached = {std: fit(LinearModel.random(std=std), mnist.train, mnist.valid, loss=sigmoid_mse, epochs=3,
                        lr=1.0).valid_accuracy[-1] for std in (1.0, 0.01)}
    assert reached[1.0] < 0.35 and reached[0.01] > 0.86


def test_two_layers_pass_ninety_five_in_a_hundred(mnist):
    history = fit(TwoLayerNet(), mnist.train, mnist.valid, loss=cross_entropy, epochs=10, lr=1.0)
    assert 0.945 < history.valid_accuracy[-1] < 0.97 and history.train_loss[0] < 1.2


def test_the_fast_recipe_passes_ninety_eight_and_a_half(mnist):
    net = train(mnist, "fast")
    assert evaluate(net, mnist.valid).accuracy > 0.985 and sum(p.numel() for p in net.parameters()) == 21_714


def test_a_model_that_knows_nothing_pays_the_logarithm_of_ten(mnist):
    "The two-layer net from 1/sqrt(inputs) nearly so; weights of size 1 far more."
    images, labels = mnist.train[torch.arange(0, 50_000, 50)]  # of every digit
    assert cross_entropy(LinearModel.random(std=0.0)(images), labels).item() == pytest.approx(2.302585, abs=1e-5)
    assert cross_entropy(TwoLayerNet()(images), labels) < 2.6
    assert cross_entropy(LinearModel.random(std=1.0)(images), labels) > 8
