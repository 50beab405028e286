"""fit and evaluate: what they refuse, what they leave behind, and that a seed decides a run."""
import re
from functools import partial

import pytest
import torch
from torch import nn

from mnist_scratch.data import MNIST, Digits
from mnist_scratch.linear import LinearModel, init_params
from mnist_scratch.losses import cross_entropy, sigmoid_mse
from mnist_scratch.nets import TwoLayerNet
from mnist_scratch.shapes import ShapeError
from mnist_scratch.training import evaluate, final_evaluation, fit, minibatches


@pytest.fixture
def digits(generator):
    "Noise around ten patterns: easy to learn."
    patterns, labels = torch.rand(10, 28, 28, generator=generator), torch.arange(200) % 10
    return Digits((patterns[labels] + 0.1 * torch.rand(200, 28, 28, generator=generator)).clamp(0, 1), labels)


MODELS = {
    "linear": lambda: LinearModel.random(seed=0),
    "two layers": lambda: TwoLayerNet(n_hidden=16, seed=0),
}


def dropout_net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10))


def one_cycle(optimizer, n_steps):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=n_steps)


sgd = partial(fit, loss=cross_entropy, epochs=3, lr=0.1, batch_size=32)
adam = partial(sgd, lr=0.01, optimizer=torch.optim.Adam, schedule=one_cycle)
TRAINERS = {
    "linear, SGD": (MODELS["linear"], sgd),
    "two layers, SGD": (MODELS["two layers"], sgd),
    "two layers, Adam + one-cycle": (MODELS["two layers"], adam),
    "dropout, Adam + one-cycle": (dropout_net, adam),
}
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"))


def moved(model, device):
    for parameter in model.parameters():
        parameter.data = parameter.data.to(device)
    return model


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("name", TRAINERS)
def test_a_seed_decides_a_run(digits, name, device):
    "To the last bit: losses, accuracies and parameters."
    make, train = TRAINERS[name]
    digits = digits.to(device)

    def run(seed):
        model = moved(make(), device)
        return train(model, digits, digits, seed=seed), model

    # The second run finds PyTorch's own generator in another state, as it would be in a notebook.
    (first, model), _, (second, again), (other, _) = run(0), torch.rand(5, device=device), run(0), run(1)
    assert first.train_loss == second.train_loss and first.valid_accuracy == second.valid_accuracy
    assert all(ours.equal(theirs) for ours, theirs in zip(model.parameters(), again.parameters(), strict=True))
    assert other.train_loss != first.train_loss
    assert first.train_loss[-1] < first.train_loss[0]


def test_fit_leaves_the_random_numbers_of_others_alone(digits):
    before = torch.random.get_rng_state()
    adam(dropout_net(), digits, digits)
    assert torch.random.get_rng_state().equal(before)


def test_fit_seeds_no_gpu_that_it_does_not_use(digits, monkeypatch):
    "torch.manual_seed would, and `fit` could not undo it."
    net = dropout_net()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("every GPU was seeded"))
    adam(net, digits, digits)


@pytest.mark.parametrize("where", [CUDA])
def test_fit_leaves_the_random_numbers_of_a_gpu_alone(digits, where):
    before = torch.cuda.get_rng_state()
    for device in ("cpu", where):
        adam(moved(dropout_net(), device), digits.to(device), digits.to(device))
        assert torch.cuda.get_rng_state().equal(before), device


def test_gradients_from_before_do_not_count(digits):
    fresh, used = MODELS["linear"](), MODELS["linear"]()
    (100 * cross_entropy(used(digits.images), digits.labels)).backward()
    assert sgd(used, digits, digits).train_loss == sgd(fresh, digits, digits).train_loss


def test_global_random_numbers_do_not_matter(digits):
    losses = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        losses.append(fit(MODELS["linear"](), digits, digits, loss=cross_entropy, epochs=1, lr=0.1).train_loss)
    assert losses[0] == losses[1]


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batches_of_no_size_are_refused(digits, generator, batch_size):
    with pytest.raises(ValueError, match=rf"minibatches\(\): batch_size should be at least 1, got {batch_size}"):
        list(minibatches(10, batch_size, generator))
    with pytest.raises(ValueError, match=rf"evaluate\(\): batch_size should be greater than 0, got {batch_size}"):
        evaluate(LinearModel.random(), digits, batch_size=batch_size)


@pytest.mark.parametrize("setting", [{"epochs": 0}, {"lr": 0.0}, {"lr": -1.0}, {"lr": float("nan")}, {"batch_size": 0}])
def test_bad_settings_are_named(digits, setting):
    model = LinearModel.random()
    before = model.weights.detach().clone()
    with pytest.raises(ValueError, match=f"fit.*{next(iter(setting))} should be greater than 0, got"):
        fit(model, digits, digits, **{"loss": cross_entropy, "epochs": 1, "lr": 0.1, **setting})
    assert model.weights.equal(before)


@pytest.mark.parametrize(("setting", "kind"), [
    ({"epochs": 1.5}, "a whole number, got 1.5"), ({"batch_size": 2.5}, "a whole number, got 2.5"),
    ({"lr": float("inf")}, "finite, got inf"),
])
def test_settings_of_a_wrong_kind_are_named(digits, setting, kind):
    with pytest.raises(ValueError, match=rf"fit\(\): {next(iter(setting))} should be {kind}"):
        sgd(LinearModel.random(), digits, digits, **setting)


def is_refused_before_anything_is_learned(good: Digits, bad: Digits, complaint: str):
    "As training images, as validation images and to be evaluated; `complaint` follows the name of the argument."
    model = LinearModel.random()
    before = model.weights.detach().clone()
    for name, piles in {"train": (bad, good), "valid": (good, bad)}.items():
        with pytest.raises(ValueError, match=rf"fit\(\): {name}{complaint}"):
            sgd(model, *piles)
    with pytest.raises(ValueError, match=rf"evaluate\(\): digits{complaint}"):
        evaluate(model, bad)
    assert model.weights.equal(before)


def test_no_images(digits):
    is_refused_before_anything_is_learned(digits, Digits(*digits[:0]), " should hold at least one image, got none")


@pytest.mark.parametrize("wrong", [-1, 10, 255])
def test_labels_that_are_no_digits_are_named_before_anything_is_learned(digits, wrong):
    "A -1 would otherwise be taken for the last class, the nines, without a word."
    bad = Digits(digits.images, digits.labels.clone())
    bad.labels[17] = wrong
    is_refused_before_anything_is_learned(digits, bad, f".labels should lie between 0 and 9, got {wrong}")


def test_images_of_another_size_than_the_model_expects(digits):
    small = Digits(digits.images[:, :27], digits.labels)
    for ask in (evaluate, lambda model, digits: sgd(model, digits, digits)):
        with pytest.raises(ShapeError, match=r"weights .*got float32 \(784, 10\) \(pixels is float32 \(\d+, 756\)"):
            ask(LinearModel.random(), small)


def test_a_model_on_another_device_than_the_images(digits):
    for ask in (evaluate, lambda model, digits: sgd(model, digits, digits)):
        with pytest.raises(ShapeError, match="weights has device meta, but pixels has device cpu"):
            ask(LinearModel.random(device="meta"), digits)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_model_that_gives_no_numbers_is_no_poor_model(digits, number):
    "It would answer 0 for every image, and score one in ten."
    def broken(images):
        logits = torch.zeros(len(images), 10)
        logits[3, 4] = number
        return logits

    with pytest.raises(ValueError, match="the logits of 2 of 200 images are not finite.*try a smaller lr"):
        evaluate(broken, digits, batch_size=100)


def test_a_loss_that_is_no_number_stops_the_run(digits):
    with pytest.raises(ValueError, match="the loss became .*; try a smaller lr"):
        fit(LinearModel.random(), digits, digits, loss=lambda *_: cross_entropy(*_) * float("nan"), epochs=50, lr=0.1)


@pytest.mark.parametrize("shape", [(200, 3), (200, 11), (200,), (200, 10, 1), (1, 10)])
def test_logits_of_a_wrong_shape_are_named(digits, shape):
    with pytest.raises(ValueError, match=rf"logits of shape \(200, 10\).*got {re.escape(str(shape))}"):
        evaluate(lambda images: torch.zeros(shape), digits, batch_size=200)


def test_torch_modules_optimisers_and_schedules_fit_in(digits):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Dropout(0.1))
    rates = []

    def watched(optimizer, n_steps):
        scheduler = one_cycle(optimizer, n_steps)
        original = scheduler.step
        scheduler.step = lambda: (original(), rates.append(scheduler.get_last_lr()[0]))
        return scheduler

    history = fit(net, digits, digits, loss=cross_entropy, epochs=4, lr=0.01, batch_size=30,
                  optimizer=torch.optim.AdamW, schedule=watched)
    assert history.valid_accuracy[-1] > 0.9
    assert len(rates) == 4 * 7 and max(rates) == pytest.approx(0.01, rel=0.01) and rates[-1] < rates[0]
    assert not net.training


def test_a_plain_step_follows_a_schedule(digits):
    plain, theirs = (sgd(MODELS["linear"](), digits, digits, schedule=one_cycle, **options)
                     for options in ({}, {"optimizer": torch.optim.SGD}))
    assert plain.train_loss == theirs.train_loss != sgd(MODELS["linear"](), digits, digits).train_loss


def test_only_the_final_evaluation_reads_the_test_images(digits):
    model, other = MODELS["linear"](), Digits(digits.images[:50], digits.labels[:50])
    mnist = MNIST(train=digits, valid=digits, test=other, name="noise")
    assert final_evaluation(model, mnist).predicted.equal(evaluate(model, other).predicted)


def test_evaluate_switches_dropout_off_and_back_on(digits):
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Dropout(0.9)).train()
    assert evaluate(net, digits).predicted.equal(evaluate(net, digits).predicted)
    assert net.training


def test_evaluate_switches_dropout_back_on_after_an_error(digits):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 10), nn.Dropout(0.9)).train()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        evaluate(net, digits)
    assert net.training


def test_evaluations_can_be_compared(digits):
    first, second = (evaluate(MODELS["linear"](), digits) for _ in range(2))
    assert first == first and first != second and len({first, second}) == 2


def test_gradients_are_left_clear(digits):
    model = LinearModel.random()
    fit(model, digits, digits, loss=sigmoid_mse, epochs=1, lr=1.0)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_absent_digit_has_no_accuracy(digits):
    without_threes = Digits(*digits[digits.labels != 3])
    per_digit = evaluate(LinearModel.random(), without_threes).per_digit
    assert per_digit[3].isnan() and not per_digit[[0, 1, 2, 4, 5, 6, 7, 8, 9]].isnan().any()


def test_bad_models():
    with pytest.raises(ValueError, match="n_hidden should be at least 1, got 0"):
        TwoLayerNet(n_hidden=0)
    with pytest.raises(ValueError, match="std should not be negative, got -1"):
        init_params(3, std=-1.0)


@pytest.mark.parametrize("device", [CUDA])
@pytest.mark.parametrize("name", MODELS)
def test_cuda_agrees_with_the_cpu(digits, name, device):
    losses = {}
    for where in ("cpu", device):
        there = digits.to(where)
        losses[where] = fit(moved(MODELS[name](), where), there, there, loss=cross_entropy, epochs=2, lr=0.1).train_loss
    assert losses[device] == pytest.approx(losses["cpu"], rel=1e-3)
