"""The deterministic figures of the original post, by its own protocol: means of all 60,000 training images, measured
on the 10,000 test images. Nothing is chosen here; the figures are facts about MNIST that the code must reproduce."""
import pytest
import torch

from mnist_scratch.baseline import is_digit, mae_distance, mse_distance, pixel_means
from mnist_scratch.data import load_mnist

POST = {
    mae_distance: [0.8153, 0.9982, 0.4234, 0.6089, 0.6680, 0.3262, 0.7871, 0.7646, 0.4425, 0.7760],
    mse_distance: [0.8959, 0.9621, 0.7568, 0.8059, 0.8259, 0.6861, 0.8633, 0.8327, 0.7372, 0.8067],
}
CORRECT_OVER_TOTAL = {mae_distance: 0.6685, mse_distance: 0.8203}


@pytest.fixture(scope="module")
def post_protocol(full_folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:  # it runs before `own_folders`, which is for one test
        patch.setenv("MNIST_SCRATCH_CACHE", str(tmp_path_factory.mktemp("post_cache")))
        mnist = load_mnist(full_folder, device="cpu")
    images = torch.cat([mnist.train.images, mnist.valid.images])
    return pixel_means(images, torch.cat([mnist.train.labels, mnist.valid.labels])), mnist.test


@pytest.mark.parametrize("distance", POST, ids=lambda distance: distance.__name__)
def test_accuracy_per_digit_to_four_decimals(post_protocol, distance):
    means, test = post_protocol
    images_of = [test.images[test.labels == digit] for digit in range(10)]
    ours = [is_digit(images_of[digit], digit, means, distance).double().mean().item() for digit in range(10)]
    assert [round(accuracy, 4) for accuracy in ours] == POST[distance]


@pytest.mark.parametrize("distance", POST, ids=lambda distance: distance.__name__)
def test_correct_over_total(post_protocol, distance):
    means, test = post_protocol
    correct = distance(test.images, means).argmin(1) == test.labels
    assert round(correct.double().mean().item(), 4) == CORRECT_OVER_TOTAL[distance]
