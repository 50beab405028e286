"""fit and evaluate: against a loop written out by hand; modes, seeds, interrupts; what cannot work says so first."""
import math
import time
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mnist_scratch.convnet import one_cycle
from mnist_scratch.data import Digits
from mnist_scratch.linear import LinearModel, init_params
from mnist_scratch.losses import cross_entropy
from mnist_scratch.nets import TwoLayerNet
from mnist_scratch.training import Evaluation, evaluate, fit, memory_format, minibatches


@pytest.fixture
def digits(generator):
    "Noise around ten patterns: easy to learn."
    patterns, labels = torch.rand(10, 28, 28, generator=generator)/2, torch.arange(300) % 10
    return Digits(patterns[labels] + 0.1*torch.rand(300, 28, 28, generator=generator), labels)


def net(*extra: nn.Module) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), *extra, nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10))


def watched(watch) -> LinearModel:
    "A model that shows the images to `watch` before it answers."
    class Watched(LinearModel):
        def __call__(self, images):
            watch(images)
            return super().__call__(images)
    return Watched.random()


def trained(digits, model=None, **changed):
    settings = {"valid": digits, "loss": cross_entropy, "epochs": 2, "lr": 0.1, "batch_size": 100, **changed}
    return fit(model or LinearModel.random(), digits, **settings)


MOMENTUM = partial(torch.optim.SGD, momentum=0.9)


def by_hand(model, train, valid, epochs, lr, batch_size=256, seed=0, optimizer=torch.optim.SGD, schedule=None):
    "What `fit` does, written out: both losses and the accuracies of all epochs."
    descent, losses, after, accuracies = optimizer(model.parameters(), lr), [], [], []
    scheduler = schedule and schedule(descent, epochs*math.ceil(len(train)/batch_size))
    order = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # from which dropout draws
    for _ in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(train), generator=order).split(batch_size):
            loss = F.cross_entropy(model(train.images[batch]), train.labels[batch])
            descent.zero_grad()
            loss.backward()
            descent.step()
            if scheduler:
                scheduler.step()
            total += loss.item()*len(batch)
        losses.append(total/len(train))
        getattr(model, "eval", int)()  # a module's
        with torch.no_grad():
            logits = model(valid.images.clone())
        getattr(model, "train", int)()
        after.append(F.cross_entropy(logits, valid.labels).item())
        accuracies.append((logits.argmax(1) == valid.labels).float().mean().item())
    return losses, after, accuracies


@pytest.mark.parametrize("make, settings", [
    (LinearModel.random, {"epochs": 2, "lr": 0.1}),
    (lambda: watched(lambda images: images.add_(0.1*torch.rand_like(images))), {"epochs": 3, "lr": 0.05, "seed": 5}),
    (net, {"epochs": 3, "lr": 0.05, "batch_size": 32, "seed": 6, "optimizer": MOMENTUM, "schedule": one_cycle}),
], ids=["defaults", "images changed at random", "dropout, momentum, one cycle"])
def test_fit_is_a_loop_written_out_and_leaves_nothing_behind(digits, make, settings):
    model, reference, images = make(), make(), digits.images.clone()
    valid = Digits(images[:50], digits.labels[:50]//2)  # most of the labels are wrong
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e6)  # of what was calculated before
    chance = torch.random.get_rng_state()
    history = fit(model, digits, valid, loss=cross_entropy, **settings)
    assert torch.random.get_rng_state().equal(chance) and digits.images.equal(images)
    assert all(parameter.grad is None for parameter in model.parameters())
    losses, after, accuracies = by_hand(reference, digits, valid, **settings)
    torch.testing.assert_close(list(model.parameters()), list(reference.parameters()), rtol=1e-4, atol=1e-5)
    assert history.train_loss == pytest.approx(losses, rel=1e-4) and history.valid_accuracy == pytest.approx(accuracies)
    assert history.valid_loss == pytest.approx(after, rel=1e-3) and len(set(after)) == settings["epochs"]
    assert losses[-1] < losses[0] and isinstance(history.train_loss[0], float)


def test_seconds_are_of_learning_alone(digits, monkeypatch):
    ticks = []
    monkeypatch.setattr(time, "perf_counter", lambda: len(ticks))
    model = watched(lambda images: ticks.extend([0]*(1 if torch.is_grad_enabled() else 100)))
    assert trained(digits, model).seconds == 2*3


@pytest.mark.parametrize("shape, threads", [((1, 1), 1), ((1, 1, 1), 2), ((992_149,), 1), ((992_150,), 2)])
def test_less_than_a_million_parameters_without_windows_learn_on_one_thread(digits, request, shape, threads):
    "7,850 of them, and others that have no part in the loss, which stay as they are."
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(2)
    model, idle, seen = LinearModel.random(), torch.ones(shape, requires_grad=True), []
    model.parameters = lambda: [idle, model.weights, model.biases]

    def loss(logits, labels):
        seen.append(torch.get_num_threads())
        return cross_entropy(logits, labels)*(torch.nan if len(seen) > 2 + 3 else 1)  # in the second epoch
    with pytest.raises(ValueError, match=r"^fit\(\): .*loss.* nan.* lr"):
        trained(digits, model, loss=loss)
    assert seen[-1] == threads and torch.get_num_threads() == 2 and (idle == 1).all()


@pytest.mark.parametrize("last", [6, 9], ids=["learning", "measuring"])
def test_an_interrupt_ends_it_and_keeps_what_was_learned(digits, capsys, last):
    "Nine times it is tried, learns three times, is measured, learns three times, and is measured."
    moments = []

    def interrupt(*_):
        moments.append(0)
        if len(moments) == last:
            raise KeyboardInterrupt
    model = watched(lambda images: torch.is_grad_enabled() or interrupt())
    model.biases.register_post_accumulate_grad_hook(interrupt)
    history = trained(digits, model, epochs=3)
    assert "epoch 2 of 3" in capsys.readouterr().out and len(moments) == last
    assert len(history.train_loss) == len(history.valid_accuracy) == 1
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.biases.any()


@pytest.mark.parametrize("before, frozen", [(True, False), (False, False), (True, True)])
def test_a_net_learns_in_training_mode_in_every_epoch_and_has_its_own_modes_back(digits, before, frozen):
    model, seen = net(nn.BatchNorm1d(32)).train(before), []
    model[2].train(before and not frozen)
    modes, mean = [module.training for module in model.modules()], model[2].running_mean.clone()
    model.register_forward_pre_hook(lambda module, images: seen.append((module.training, module[2].training)))
    trained(digits, model, batch_size=150)
    learn, use = (True, not frozen), (False, False)
    assert seen == [use, learn, learn, use, learn, learn, use]  # tried, two batches, measured, and again
    assert [module.training for module in model.modules()] == modes and model[2].running_mean.equal(mean) == frozen


@pytest.mark.parametrize("wrap", [
    lambda model: model, lambda model: partial(lambda parts, images: parts[0](images), [model])])
def test_evaluating_never_learns_and_gives_every_mode_back(digits, wrap):
    model = net(nn.BatchNorm1d(32))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert evaluate(wrap(model), digits).confidence.equal(evaluate(wrap(model), digits).confidence)
    assert all(value.equal(state[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        evaluate(wrap(model), Digits(digits.images[:, :27], digits.labels))
    assert all(module.training for module in model.modules()), "also after an error"
    evaluate(wrap(model.eval()), digits)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("sizes, asked", [({}, [1000, 1]), ({"batch_size": 400}, [400, 400, 201])], ids=str)
def test_images_are_asked_in_batches_which_the_model_may_change(generator, sizes, asked):
    digits, seen = Digits(torch.rand(1001, 2, 5, generator=generator), torch.zeros(1001, dtype=torch.int64)), []
    images = digits.images.clone()
    confidence = (images - 0.5).flatten(1).softmax(1).amax(1)
    found = evaluate(lambda images: seen.append(len(images)) or images.sub_(0.5).flatten(1), digits, **sizes)
    assert seen == asked and found.confidence.allclose(confidence) and digits.images.equal(images)


def test_an_evaluation_of_known_answers():
    labels, predicted = torch.tensor([3, 3, 3, 5, 7]), torch.tensor([3, 5, 7, 5, 3])
    one = Evaluation(labels, predicted, torch.tensor([0.9, 0.5, 0.8, 0.4, 0.8]))
    assert one.accuracy == 0.4 and one.error_bar == pytest.approx((0.4*0.6/5)**0.5)
    assert one.confusion.shape == (10, 10) and one.confusion.sum() == 5
    assert one.confusion.nonzero().tolist() == [[3, 3], [3, 5], [3, 7], [5, 5], [7, 3]]
    assert one.per_digit[[3, 5, 7]].tolist() == pytest.approx([1/3, 1, 0]) and one.per_digit[0].isnan()
    assert one.worst().tolist() == [2, 4, 1] and one.worst(1).tolist() == [2]
    wrong = Evaluation(torch.zeros(12).long(), torch.ones(12).long(), torch.linspace(0, 1, 12))
    assert wrong.worst().tolist() == [11, 10, 9, 8, 7, 6, 5, 4, 3]
    assert one == one and one != Evaluation(labels, predicted, one.confidence) and len({one, wrong}) == 2
    with pytest.raises(AttributeError, match="labels"):
        one.labels = predicted


LOGITS = torch.linspace(-1, 1, 3000).view(300, 10)
SHARES = LOGITS.softmax(1)


@pytest.mark.parametrize("answer, complaint", [
    (SHARES, "probabilities.*softmax"), (torch.eye(10).repeat(30, 1), "probabilities"), (SHARES*1.0005, "softmax"),
    (LOGITS[:, :3], r"\(300, 10\).*float32 \(300, 3\)"), (LOGITS[:1], r"float32 \(1, 10\)"), ((LOGITS,)*2, "tuple"),
    (LOGITS.where(LOGITS < 0.9999, torch.inf), "finite"), (LOGITS.where(LOGITS > -0.9999, torch.nan), "finite.* lr"),
    (LOGITS, None), (LOGITS.double(), None), (torch.cat([SHARES[:1], LOGITS[1:].abs()]), None), (SHARES*1.002, None),
    (100*(LOGITS - LOGITS.mean(1, keepdim=True)) + 0.1, None)])  # rows that add up to 1, but are no shares
def test_answers_that_are_no_logits_are_refused(digits, answer, complaint):
    with pytest.raises(ValueError, match=rf"^evaluate\(\): .*{complaint}") if complaint else nullcontext():
        found = evaluate(lambda images: answer, digits)
        assert found.predicted.equal(answer.argmax(1)) and found.confidence.dtype == torch.float32


@pytest.mark.parametrize("settings, complaint", [
    ({"loss": partial(F.cross_entropy, reduction="sum")}, "loss .*mean.*reduction"),
    ({"loss": partial(F.cross_entropy, reduction="none")}, r"loss .*float32 \(2,\)"),
    ({"loss": lambda *_: cross_entropy(*_)[None]}, r"loss .*float32 \(1,\)"),
    ({"model": nn.Sequential(net(), nn.Softmax(1))}, "probabilities.*softmax"),
    ({"loss": lambda *_: 1.0}, "loss .*float "), ({"loss": lambda *_: cross_entropy(*_) - 100}, None),
    ({"optimizer": torch.optim.Adam([torch.zeros(1)])}, "optimizer .*torch.optim.Adam, got Adam"),
    ({"model": LinearModel(torch.zeros(10, 784), torch.zeros(10))}, "requires.* gradient"),
    ({"model": lambda images: LOGITS}, "requires.* gradient"),
    ({"model": net().double()}, r"float32.*float64 \(32, 784\).*float\(\)"),
    ({"model": LinearModel(init_params(3, 784), init_params(3))}, r"\(2, 10\).*float32 \(2, 3\)"),
    ({"model": net(nn.BatchNorm1d(32)), "batch_size": 1}, "last .*batch norm"), ({"batch_size": 299}, None),
    ({"model": net(nn.BatchNorm1d(32)).eval(), "batch_size": 299}, "299.* last .*batch norm"),
    ({"model": net(nn.BatchNorm1d(32))}, None), ({"model": net(nn.BatchNorm1d(32).eval()), "batch_size": 299}, None),
    *(({name: 0}, f"{name} .*0") for name in ("epochs", "batch_size", "lr"))], ids=str)
def test_mistakes_are_named_before_anything_is_learned(digits, settings, complaint):
    model = settings.get("model", LinearModel.random())
    before = nn.utils.parameters_to_vector(model.parameters()) if hasattr(model, "parameters") else torch.zeros(0)
    with pytest.raises(ValueError, match=rf"^fit\(\): .*{complaint}") if complaint else nullcontext():
        trained(digits, **{"model": model, **settings})
    assert len(before) == 0 or nn.utils.parameters_to_vector(model.parameters()).equal(before) == bool(complaint)


@pytest.mark.parametrize("make, complaint", [
    (lambda digits: digits[:100], " .*Digits, got tuple.*Digits"), (lambda digits: None, " .*Digits, got NoneType"),
    (lambda digits: Digits(*digits[:0]), ".* at least one"), (lambda digits: digits, r"\.labels .*9, got 10")])
def test_piles_that_cannot_be_used(digits, make, complaint):
    good, bad = Digits(digits.images, digits.labels.clone()), make(digits)
    digits.labels[17] = 10
    for name, ask in {r"fit\(\): train": partial(trained, bad, valid=good),
                      r"fit\(\): valid": partial(trained, good, valid=bad),
                      r"evaluate\(\): digits": partial(evaluate, LinearModel.random(), bad)}.items():
        with pytest.raises(ValueError, match=f"^{name}{complaint}"):
            ask()


def test_other_settings(digits):
    for complaint, ask in {
            r"^evaluate\(\): batch_size .*0": partial(evaluate, LinearModel.random(), digits, batch_size=0),
            r"^evaluate\(\): .*float32.*float16": partial(evaluate, net().half(), digits),
            r"^minibatches\(\): batch_size .*0": partial(next, minibatches(3, 0, torch.Generator())),
            r"weights .*\(10, 784\).*\(2, 28\)": partial(trained, Digits(digits.images[:, :1], digits.labels)),
            "n_hidden .*1, got 0": partial(TwoLayerNet, 0)}.items():
        with pytest.raises(ValueError, match=complaint):
            ask()
    assert list(minibatches(0, 5, torch.Generator())) == []
    assert {memory_format(device) for device in (None, "cpu", torch.device("cuda", 1))} == {torch.channels_last}
    assert memory_format("mps") == torch.contiguous_format
