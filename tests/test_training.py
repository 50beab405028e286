"""fit and evaluate: what they refuse, what they leave behind, and that a seed decides a run."""
import pytest
import torch
from torch import nn

from mnist_scratch.data import MNIST, Digits
from mnist_scratch.linear import LinearModel, init_params
from mnist_scratch.losses import cross_entropy, sigmoid_mse
from mnist_scratch.nets import TwoLayerNet
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


@pytest.mark.parametrize("name", MODELS)
def test_a_seed_decides_a_run(digits, name):
    def run(seed):
        model = MODELS[name]()
        return fit(model, digits, digits, loss=cross_entropy, epochs=3, lr=0.1, batch_size=32, seed=seed), model

    (first, model), (second, again), (other, _) = run(0), run(0), run(1)
    assert first.train_loss == second.train_loss and first.valid_accuracy == second.valid_accuracy
    assert all(ours.equal(theirs) for ours, theirs in zip(model.parameters(), again.parameters(), strict=True))
    assert other.train_loss != first.train_loss
    assert first.train_loss[-1] < first.train_loss[0]


def test_global_random_numbers_do_not_matter(digits):
    losses = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        losses.append(fit(MODELS["linear"](), digits, digits, loss=cross_entropy, epochs=1, lr=0.1).train_loss)
    assert losses[0] == losses[1]


def test_minibatches_hold_every_index_once(generator):
    batches = list(minibatches(10, 4, generator))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(torch.cat(batches).tolist()) == list(range(10))


@pytest.mark.parametrize("setting", [{"epochs": 0}, {"lr": 0.0}, {"lr": -1.0}, {"lr": float("nan")}, {"batch_size": 0}])
def test_bad_settings_are_named(digits, setting):
    model = LinearModel.random()
    before = model.weights.detach().clone()
    with pytest.raises(ValueError, match=f"fit.*{next(iter(setting))} should be greater than 0, got"):
        fit(model, digits, digits, **{"loss": cross_entropy, "epochs": 1, "lr": 0.1, **setting})
    assert model.weights.equal(before)


def test_no_images(digits):
    nothing = Digits(*digits[:0])
    with pytest.raises(ValueError, match="number of images should be greater than 0, got 0"):
        fit(LinearModel.random(), nothing, digits, loss=cross_entropy, epochs=1, lr=0.1)
    with pytest.raises(ValueError, match="at least one image"):
        evaluate(LinearModel.random(), nothing)


def test_a_loss_that_is_no_number_stops_the_run(digits):
    with pytest.raises(ValueError, match="the loss became .*; try a smaller lr"):
        fit(LinearModel.random(), digits, digits, loss=lambda *_: cross_entropy(*_) * float("nan"), epochs=50, lr=0.1)


def test_a_model_with_too_few_classes_is_named(digits):
    with pytest.raises(ValueError, match=r"logits of shape \(200, 10\).*got \(200, 3\)"):
        evaluate(lambda images: torch.zeros(len(images), 3), digits)


def test_torch_modules_optimisers_and_schedules_fit_in(digits):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Dropout(0.1))
    rates = []

    def one_cycle(optimizer, n_steps):
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=n_steps)
        original = scheduler.step
        scheduler.step = lambda: (original(), rates.append(scheduler.get_last_lr()[0]))
        return scheduler

    history = fit(net, digits, digits, loss=cross_entropy, epochs=4, lr=0.01, batch_size=30,
                  optimizer=torch.optim.AdamW, schedule=one_cycle)
    assert history.valid_accuracy[-1] > 0.9
    assert len(rates) == 4 * 7 and max(rates) == pytest.approx(0.01, rel=0.01) and rates[-1] < rates[0]
    assert not net.training


def test_only_the_final_evaluation_reads_the_test_images(digits):
    model, other = MODELS["linear"](), Digits(digits.images[:50], digits.labels[:50])
    mnist = MNIST(train=digits, valid=digits, test=other, name="noise")
    assert final_evaluation(model, mnist).predicted.equal(evaluate(model, other).predicted)


def test_evaluate_switches_dropout_off_and_back_on(digits):
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Dropout(0.9)).train()
    assert evaluate(net, digits).predicted.equal(evaluate(net, digits).predicted)
    assert net.training


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("name", MODELS)
def test_cuda_agrees_with_the_cpu(digits, name):
    losses = {}
    for device in ("cpu", "cuda"):
        model = MODELS[name]()
        moved = digits.to(device)
        for parameter in model.parameters():
            parameter.data = parameter.data.to(device)
        losses[device] = fit(model, moved, moved, loss=cross_entropy, epochs=2, lr=0.1).train_loss
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3)
