"""fit and evaluate: against a loop written out by hand; modes, seeds, interrupts; what cannot work says so first."""
import os
import signal
import time
from functools import partial

import pytest
import torch
from conftest import ROOT, read_notebook
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset

from mnist_scratch import training
from mnist_scratch.checks import ShapeError
from mnist_scratch.convnet import ConvNet
from mnist_scratch.data import MNIST, Digits
from mnist_scratch.linear import LinearModel, init_params
from mnist_scratch.losses import cross_entropy, sigmoid_mse
from mnist_scratch.nets import TwoLayerNet
from mnist_scratch.training import Evaluation, evaluate, fit, minibatches


@pytest.fixture
def digits(generator):
    "Noise around ten patterns: easy to learn."
    patterns, labels = torch.rand(10, 28, 28, generator=generator)/2, torch.arange(200) % 10
    return Digits(patterns[labels] + 0.1*torch.rand(200, 28, 28, generator=generator), labels)


def net(*extra: nn.Module) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), *extra, nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10))


def one_cycle(optimizer, n_steps):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=n_steps)


sgd = partial(fit, loss=cross_entropy, epochs=3, lr=0.1, batch_size=32)
adam = partial(sgd, lr=0.01, optimizer=torch.optim.Adam, schedule=one_cycle)
TRAINERS = {"linear, SGD": (LinearModel.random, sgd), "two layers, SGD": (lambda: TwoLayerNet(16), sgd),
            "dropout, Adam, one-cycle": (net, adam)}


def values(model) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


# Learning


@pytest.mark.parametrize("name", TRAINERS)
def test_fit_is_a_loop_written_out(digits, name):
    "The order of one seeded generator, the mean loss of an epoch, a smaller last batch, a schedule for each step."
    make, train = TRAINERS[name]
    model, reference = make(), make()
    valid = Digits(*digits[:50])
    history = train(model, digits, valid, seed=5)
    losses, accuracies, order = [], [], torch.Generator().manual_seed(5)
    torch.manual_seed(5)  # from which dropout draws
    is_plain = train is sgd
    parameters = reference.parameters()
    descent = torch.optim.SGD(parameters, 0.1) if is_plain else torch.optim.Adam(parameters, 0.01)
    schedule = None if is_plain else one_cycle(descent, 3*7)
    for _ in range(3):
        total = 0.0
        for batch in torch.randperm(200, generator=order).split(32):
            loss = F.cross_entropy(reference(digits.images[batch]), digits.labels[batch])
            descent.zero_grad()
            loss.backward()
            descent.step()
            if schedule:
                schedule.step()
            total += loss.item()*len(batch)
        losses.append(total/200)
        with torch.no_grad():
            logits = (reference.eval() if isinstance(reference, nn.Module) else reference)(valid.images)
        if isinstance(reference, nn.Module):
            reference.train()
        accuracies.append((logits.argmax(1) == valid.labels).double().mean().item())
    torch.testing.assert_close(values(model), values(reference), rtol=1e-4, atol=1e-5)
    assert history.train_loss == pytest.approx(losses, rel=1e-4)
    assert history.valid_accuracy == pytest.approx(accuracies)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", TRAINERS)
def test_a_seed_decides_a_run_and_leaves_the_random_numbers_of_others_alone(digits, name):
    make, train = TRAINERS[name]
    runs = []
    for seed in (0, 0, 1):
        torch.rand(len(runs))  # as another cell of a notebook would
        model, before = make(), torch.random.get_rng_state()
        history = train(model, digits, digits, seed=seed)
        assert torch.random.get_rng_state().equal(before)
        runs.append((values(model), history.train_loss))
    assert runs[0][0].equal(runs[1][0]) and runs[0][1] == runs[1][1] != runs[2][1]


def test_the_loop_of_04_gives_the_same_bits(digits):
    cells = read_notebook(ROOT / "nbs" / "04_loss_functions.ipynb")["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    scope = {"torch": torch, "minibatches": minibatches, "device": "cpu"}
    for name in ("sgd_step", "train_by_hand"):
        exec(next(source for source in code if source.startswith(f"def {name}(")), scope)
    by_hand, by_fit = LinearModel.random(), LinearModel.random()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as `fit` does
    scope["train_by_hand"](by_hand, digits, cross_entropy, epochs=2, lr=0.5, batch_size=32)
    torch.set_num_threads(threads)
    fit(by_fit, digits, digits, loss=cross_entropy, epochs=2, lr=0.5, batch_size=32)
    assert values(by_hand).equal(values(by_fit))


def test_seconds_are_of_learning_alone(digits, monkeypatch):
    slow = lambda *given, measure=evaluate: time.sleep(0.5) or measure(*given)  # noqa: E731
    monkeypatch.setattr(training, "evaluate", slow)
    assert 0 < sgd(LinearModel.random(), digits, digits, epochs=2).seconds < 0.5


def test_nothing_is_left_behind(digits):
    model, images = LinearModel.random(), digits.images.clone()
    model.weights.grad = torch.full_like(model.weights, 1e6)  # of what was calculated before
    history = fit(model, digits, digits, loss=sigmoid_mse, epochs=1, lr=1.0)
    assert all(parameter.grad is None for parameter in model.parameters()) and values(model).abs().max() < 10
    assert all(isinstance(value, float) for value in history.train_loss) and digits.images.equal(images)


def test_a_parameter_that_has_no_part_in_the_loss_stays_as_it_is(digits):
    model, idle = LinearModel.random(), torch.ones(3, requires_grad=True)
    model.parameters = lambda: [idle, model.weights, model.biases]
    sgd(model, digits, digits, epochs=1)
    assert idle.tolist() == [1, 1, 1]


def test_small_models_learn_on_one_thread_and_nets_with_windows_on_all(digits):
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    def loss(logits, labels):
        seen.append(torch.get_num_threads())
        return cross_entropy(logits, labels)
    try:
        for model, wanted in ((TwoLayerNet(16), 1), (ConvNet((2, 2, 2)), 2), (TwoLayerNet(2000), 2)):
            seen.clear()
            fit(model, digits, digits, loss=loss, epochs=1, lr=0.01, batch_size=100)
            assert seen[-1] == wanted and torch.get_num_threads() == 2
        with pytest.raises(ValueError, match="the loss became nan"):
            fit(LinearModel.random(), digits, digits, loss=lambda *_: cross_entropy(*_)*float("nan"), epochs=5, lr=0.1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_interrupt_ends_it_and_keeps_what_was_learned(digits, capsys):
    model, batches = LinearModel.random(), []
    def loss(logits, labels):
        batches.append(len(labels))
        if len(batches) == 2 + 7 + 3:  # in the second epoch; two calls came before anything was learned
            os.kill(os.getpid(), signal.SIGINT)
        return cross_entropy(logits, labels)
    history = sgd(model, digits, digits, loss=loss)
    assert capsys.readouterr().out == "Stopped in epoch 2 of 3; what was learned until then is kept.\n"
    assert len(history.train_loss) == len(history.valid_accuracy) == 1 and len(batches) == 12
    assert all(parameter.grad is None for parameter in model.parameters())
    assert evaluate(model, digits).accuracy > 0.3


# Measuring


class Modes(nn.Module):
    "Notes in which mode it was asked."
    def __init__(self):
        super().__init__()
        self.layer, self.seen = nn.Linear(784, 10), []

    def forward(self, images):
        self.seen.append(self.training)
        return self.layer(images.flatten(1))


def test_a_net_learns_in_training_mode_in_every_epoch_and_has_its_own_mode_back(digits):
    for before in (True, False):
        model = Modes().train(before)
        sgd(model, digits, digits, epochs=2, batch_size=100)
        assert model.seen == [False, True, True, False, True, True, False]  # tried, two batches, measured, and again
        assert model.training == before and model.layer.training == before


def test_a_frozen_part_stays_frozen(digits):
    model = net(nn.BatchNorm1d(32))
    model[2].eval()
    mean = model[2].running_mean.clone()
    adam(model, digits, digits)
    evaluate(model, digits)
    assert model[2].running_mean.equal(mean)
    assert [module.training for module in model] == [True]*2 + [False] + [True]*3


@pytest.mark.parametrize("wrap", [
    lambda model: model, lambda model: lambda images: model(images),
    lambda model: partial(lambda inner, images: inner[0](images), [model])], ids=["itself", "a function", "hidden"])
def test_evaluating_never_learns_and_gives_every_mode_back(digits, wrap):
    model = net(nn.BatchNorm1d(32)).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (evaluate(wrap(model), digits).confidence for _ in range(2))
    assert first.equal(second) and all(module.training for module in model.modules())
    assert all(value.equal(state[name]) for name, value in model.state_dict().items())
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        evaluate(wrap(model), Digits(digits.images[:, :27], digits.labels))
    assert all(module.training for module in model.modules()), "also after an error"
    model.eval()
    evaluate(wrap(model), digits)
    assert not any(module.training for module in model.modules())


def test_a_model_may_change_what_it_is_given(digits):
    weights, before = LinearModel.random(), digits.images.clone()
    def model(images): return weights(images.sub_(0.1307).div_(0.3081))
    assert evaluate(model, digits).confidence.equal(evaluate(model, digits).confidence)
    assert digits.images.equal(before)


def test_an_evaluation_of_known_answers():
    labels, predicted = torch.tensor([3, 3, 3, 5, 7]), torch.tensor([3, 5, 7, 5, 3])
    one = Evaluation(labels, predicted, torch.tensor([0.9, 0.5, 0.8, 0.4, 0.8]))
    assert one.accuracy == 0.4 and one.error_bar == pytest.approx((0.4*0.6/5)**0.5)
    wanted = torch.zeros(10, 10, dtype=torch.int64)
    wanted[3, 3] = wanted[3, 5] = wanted[3, 7] = wanted[5, 5] = wanted[7, 3] = 1
    assert one.confusion.equal(wanted)
    assert one.per_digit[[3, 5, 7]].tolist() == pytest.approx([1/3, 1, 0]) and one.per_digit[0].isnan()
    assert one.worst().tolist() == [2, 4, 1] and one.worst(1).tolist() == [2]
    assert one == one and one != Evaluation(labels, predicted, one.confidence) and len({one}) == 1
    with pytest.raises(ShapeError, match="predicted should be"):
        Evaluation(labels, predicted[:4], one.confidence)


# What cannot work


class Answers:
    "A model that gives what it is told."
    def __init__(self, answer, parameters=()):
        self.answer, self.own = answer, parameters

    def parameters(self):
        return list(self.own)

    def __call__(self, images):
        return self.answer(images)


LOGITS = torch.linspace(-1, 1, 2000).view(200, 10)
UNUSABLE = {
    "ten probabilities": (lambda images: LOGITS[:len(images)].softmax(1), "gives probabilities; leave out its softmax"),
    "three classes": (lambda images: LOGITS[:len(images), :3], r"logits of shape \(200, 10\).*got float32 \(200, 3\)"),
    "a pair": (lambda images: (LOGITS, LOGITS), "got tuple"),
    "one row": (lambda images: LOGITS[:1], r"got float32 \(1, 10\)"),
    "an axis more": (lambda images: LOGITS[:, :, None], r"got float32 \(200, 10, 1\)"),
    "not finite": (lambda images: LOGITS.where(LOGITS < 0.995, torch.inf), "logits of 1 of 200 images are not finite"),
    "not a number": (lambda images: LOGITS.where(LOGITS > -0.995, torch.nan), "of 1 of 200.*try a smaller lr"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_answers_that_are_no_logits_are_refused(digits, name):
    answer, complaint = UNUSABLE[name]
    with pytest.raises(ValueError, match=rf"^evaluate\(\): .*{complaint}"):
        evaluate(answer, digits)
    around = 100*(LOGITS - LOGITS.mean(1, keepdim=True)) + 0.1  # rows that add up to 1, but are no shares
    for logits in (LOGITS, around):
        assert evaluate(lambda images: logits[:len(images)], digits).accuracy == 0.1  # noqa: B023
    assert not evaluate(LinearModel.random(), digits).confidence.requires_grad


def trained(digits, **settings):
    return sgd(settings.pop("model", LinearModel.random()), digits, digits, **settings)


def one_batch_norm():
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784), nn.Linear(784, 10))


MISTAKES = {
    "summed loss": ({"loss": partial(F.cross_entropy, reduction="sum")}, "doubles when the batch does"),
    "loss that is no tensor": ({"loss": lambda logits, labels: 1.0}, "got float"),
    "loss in a list": ({"loss": lambda *_: cross_entropy(*_)[None]}, r"got float32 \(1,\)"),
    "loss for each image": ({"loss": partial(F.cross_entropy, reduction="none")}, r"one number.*got float32 \(2,\)"),
    "optimiser instance": ({"optimizer": torch.optim.Adam([torch.zeros(1)])}, "such as torch.optim.Adam, got Adam"),
    "schedule without its optimiser": ({"schedule": one_cycle}, r"optimizer=torch\.optim\.SGD"),
    "frozen": ({"model": LinearModel(torch.zeros(10, 784), torch.zeros(10))}, "no parameter .* requires a gradient"),
    "no parameters": ({"model": lambda images: LOGITS}, "no parameter .* requires a gradient"),
    "double": ({"model": net().double()}, r"should be float32.*got float64 \(32, 784\)"),
    "half": ({"model": net().half()}, "should be float32.*got float16"),
    "tuple": ({"model": Answers(lambda images: (LOGITS[:2],), [torch.zeros(1, requires_grad=True)])}, "got tuple"),
    "batches of one": ({"model": one_batch_norm(), "batch_size": 1}, "a last batch of one"),
    "last batch of one": ({"model": one_batch_norm(), "batch_size": 199}, "a last batch of one.*change batch_size"),
    **{f"{name} {value}": ({name: value}, f"{name} should be greater than 0 and {kind}, got {value}")
       for name, kind in (("epochs", "whole"), ("batch_size", "whole"), ("lr", "finite"))
       for value in (0, -1, float("nan"), float("inf"), *([] if name == "lr" else [1.5]))},
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named_before_anything_is_learned(digits, name):
    settings, complaint = MISTAKES[name]
    model = settings.get("model", LinearModel.random())
    before = values(model).clone() if hasattr(model, "parameters") else None
    with pytest.raises(ValueError, match=rf"^fit\(\): .*{complaint}"):
        trained(digits, **{**settings, "model": model})
    assert before is None or values(model).equal(before)


def test_what_only_looks_like_a_mistake_works(digits):
    frozen = one_batch_norm()
    frozen[1].eval()
    trained(digits, model=frozen, batch_size=199)  # its statistics are not learned
    trained(digits, model=one_batch_norm(), batch_size=200)
    trained(digits, schedule=one_cycle, optimizer=torch.optim.SGD)


@pytest.mark.parametrize("given", [
    lambda digits: digits[:100], lambda digits: digits.images.numpy(), lambda digits: DataLoader(digits),
    lambda digits: Subset(digits, [1, 2]), lambda digits: MNIST(digits, digits, digits, "x"), lambda digits: None,
], ids=["a slice", "numpy", "DataLoader", "Subset", "MNIST", "None"])
def test_what_is_no_pile_is_named_with_how_to_make_one(digits, given):
    wrong = given(digits)
    for name, piles in {"train": (wrong, digits), "valid": (digits, wrong)}.items():
        with pytest.raises(ValueError, match=rf"^fit\(\): {name} should be Digits, got {type(wrong).__name__}\."):
            sgd(LinearModel.random(), *piles)
    with pytest.raises(ValueError, match=r"^evaluate\(\): digits should be Digits, got .*mnist\.train"):
        evaluate(LinearModel.random(), wrong)


def test_no_images_and_labels_that_are_no_digits(digits):
    bad, none = Digits(digits.images, digits.labels.clone()), Digits(*digits[:0])
    bad.labels[17] = 10
    for pile, complaint in ((bad, r"\.labels should lie between 0 and 9, got 10"), (none, " should hold at least one")):
        with pytest.raises(ValueError, match=rf"^fit\(\): train{complaint}"):
            sgd(LinearModel.random(), pile, digits)
        with pytest.raises(ValueError, match=rf"^fit\(\): valid{complaint}"):
            sgd(LinearModel.random(), digits, pile)
        with pytest.raises(ValueError, match=rf"^evaluate\(\): digits{complaint}"):
            evaluate(LinearModel.random(), pile)


def test_other_settings_and_shapes(digits):
    small = Digits(digits.images[:, :27], digits.labels)
    for ask in (evaluate, lambda model, digits: sgd(model, digits, digits)):
        with pytest.raises(ShapeError, match=r"weights should be .*got float32 \(10, 784\).*pixels is .* \(\d+, 756\)"):
            ask(LinearModel.random(), small)
    with pytest.raises(ValueError, match=r"evaluate\(\): batch_size should be greater than 0 and whole, got 0"):
        evaluate(LinearModel.random(), digits, batch_size=0)
    with pytest.raises(ValueError, match=r"minibatches\(\): batch_size should be greater than 0"):
        next(minibatches(3, 0, torch.Generator()))
    with pytest.raises(ValueError, match="n_hidden should be at least 1, got 0"):
        TwoLayerNet(n_hidden=0)
    with pytest.raises(ValueError, match="std should not be negative, got -1"):
        init_params(3, std=-1.0)
