"""The convolutional net: the parts by hand are those of the library; every setting and seed does what it says."""
import math
from dataclasses import astuple, replace

import pytest
import torch
from conftest import ROOT, read_notebook
from torch import nn
from torch.nn import functional as F

from mnist_scratch import convnet
from mnist_scratch.convnet import RECIPES, ConvNet, RandomShift, RandomWarp, Recipe, nine_looks, shifted, train
from mnist_scratch.data import MNIST, Digits
from mnist_scratch.training import evaluate

BY_HAND = ("def by_", "class Batch", "class AdamW", "def half_wave", "def soft_targets", "def value_at")
IMAGES = torch.rand(25, 28, 28, generator=torch.Generator().manual_seed(0))
SMALL = Recipe(channels=(4, 6), epochs=2, dropout=0.2, lr=0.02, shift=2, batch_size=32)


@pytest.fixture(scope="module")
def by_hand() -> dict:
    "What notebook 07 and the one behind it define by hand."
    scope = {"math": math, "torch": torch, "Tensor": torch.Tensor, "nn": nn, "F": F}
    exec("from jaxtyping import Float, Int64", scope)
    for name in ("07_convnet", "deeper/parts_by_hand"):
        for cell in read_notebook(ROOT / f"nbs/{name}.ipynb")["cells"]:
            if (source := "".join(cell["source"])).startswith(BY_HAND):
                exec(source, scope)
    return scope


@pytest.fixture(scope="module")
def easy() -> MNIST:
    "Ten patterns with noise; half of the labels to validate with are wrong."
    labels = torch.arange(150) % 10
    images = IMAGES[labels]/2 + 0.1*torch.rand(150, 28, 28, generator=torch.Generator().manual_seed(1))
    labels[100:120] = 0
    return MNIST(*(Digits(images[part], labels[part]) for part in torch.arange(150).split([100, 40, 10])), "patterns")


def weights(net) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


@pytest.mark.parametrize("n_steps", [10, 24, 391])
def test_one_cycle(by_hand, n_steps):
    optimizer, rates = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3, momentum=0.9), []
    scheduler = convnet.one_cycle(optimizer, n_steps)
    for _ in range(n_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        assert optimizer.param_groups[0]["momentum"] == 0.9
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx(by_hand["one_cycle_rates"](0.3, n_steps), rel=1e-6, abs=1e-9)
    assert [rates[0], max(rates), rates[-1]] == pytest.approx([0.03, 0.3, 3e-6], rel=0.02)


def test_shifted_moves_each_image_by_its_own_move():
    images, moves = IMAGES[:, :6, :7], torch.cartesian_prod(torch.arange(-2, 3), torch.arange(-2, 3))
    for image, (down, right), result in zip(images, moves.tolist(), shifted(images, moves, 2), strict=True):
        assert result.equal(F.pad(image, (right, -right, down, -down)))  # a negative number cuts off


def test_random_moves_are_each_images_own_and_none_in_use():
    assert len(RandomShift(2)(IMAGES[:1].expand(500, 28, 28)).flatten(1).unique(dim=0)) == 25
    for idle in (RandomShift(2).eval(), RandomWarp(2).eval(), RandomShift(0), ConvNet().augment):
        assert idle(IMAGES) is IMAGES


@pytest.mark.parametrize("layer, shift", [
    (RandomWarp(3), 3), (RandomWarp(0), 0), (ConvNet(shift=2, warp=True).augment, 2)])
def test_a_warp_looks_where_six_random_numbers_say(by_hand, layer, shift):
    torch.manual_seed(1)
    found = layer(IMAGES[:3])
    torch.manual_seed(1)
    for image, draw, result in zip(IMAGES, 2*torch.rand(3, 2, 3) - 1, found):
        six = torch.eye(2, 3) + draw*torch.tensor([[0.1, 0.2, shift], [0.2, 0.1, shift]])
        torch.testing.assert_close(result, by_hand["by_looking"](image, six), rtol=0, atol=1e-4)


def test_everything_stays_on_the_device_of_the_images(monkeypatch):
    "The meta device holds no numbers: it stands for an accelerator. Of a shift, the moves are looked at."
    monkeypatch.setattr(convnet, "shifted", lambda images, moves, most: moves)
    for layer in (RandomShift(2), RandomWarp(2).to("meta"), ConvNet(warp=True, device="meta")):
        assert layer(IMAGES.to("meta")).device.type == "meta"


@pytest.mark.parametrize("options, n_parameters, n_inputs", [
    ({}, 29_514, 576), ({"channels": (16, 32, 96)}, 41_706, 864), ({"channels": (2, 3)}, 605, 48),
    ({"channels": (4,)*5, "dropout": 0.5}, 778, 4)], ids=str)
def test_every_net_gives_ten_logits_an_image(options, n_parameters, n_inputs):
    net = ConvNet(**options)
    assert net(IMAGES).shape == (25, 10) and net.eval()(IMAGES[:1]).shape == (1, 10)
    assert net.network[-1].in_features == n_inputs and len(weights(net)) == n_parameters
    assert net.network[-2].p == options.get("dropout", 0)


def test_the_net_is_what_the_lesson_builds_by_hand(by_hand):
    net = ConvNet(shift=2, seed=2)
    (first, *others), norms, (last,) = ([part for part in net.network if isinstance(part, kind)]
                                        for kind in (nn.Conv2d, nn.BatchNorm2d, nn.Linear))
    ours = [by_hand["BatchNorm"](len(norm.weight)) for norm in norms]
    for mine, norm in zip(ours, norms):
        mine.scale, mine.shift = nn.init.uniform_(norm.weight).detach(), nn.init.uniform_(norm.bias).detach()
    for training in (True, False):
        torch.manual_seed(3)
        values = (RandomShift(2).train(training)(IMAGES)[:, None] - 0.1307)/0.3081
        values = by_hand["by_unfolding"](values, first.weight)[..., ::2, ::2] + first.bias[:, None, None]
        for number, (layer, norm) in enumerate(zip(others, ours, strict=True)):
            values = by_hand["by_unfolding"](values.relu(), layer.weight) + layer.bias[:, None, None]
            values = norm(values.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5)) if number == 0 else values, training)
        values = values.relu()
        torch.manual_seed(3)
        torch.testing.assert_close(net.train(training)(IMAGES), last(values.flatten(1)), rtol=1e-4, atol=1e-4)
    assert others[0].weight.is_contiguous(memory_format=torch.channels_last)
    pictures, windows = torch.rand(2, 3, 7, 9), torch.rand(4, 3, 3, 2)
    torch.testing.assert_close(by_hand["by_loops"](pictures, windows), F.conv2d(pictures, windows))


def test_building_is_decided_by_the_seed_and_leaves_pytorchs_generator_alone():
    before = torch.random.get_rng_state()
    first, again, other = (weights(ConvNet(seed=seed)) for seed in (0, 0, 1))
    assert torch.random.get_rng_state().equal(before) and first.equal(again) and not first.equal(other)
    assert weights(ConvNet()).equal(first)


@pytest.mark.parametrize("ask, complaint", [
    (lambda: shifted(IMAGES[:2], torch.tensor([[1, -2], [3, 0]]), 2), r"^shifted\(\): moves .*-2.* 2, got 3"),
    (lambda: shifted(IMAGES[:2], torch.tensor([[0, -3], [2, 0]]), 2), r"^shifted\(\): moves .* got -3"),
    (lambda: ConvNet(shift=-1), "most .*negative, got -1"), (lambda: train(None, "best"), "fast, .*, got 'best'"),
    (lambda: ConvNet(channels=(8,)), "2 to 5 stages, got 1"), (lambda: ConvNet(channels=(8,)*6), "got 6")])
def test_what_cannot_be(ask, complaint):
    with pytest.raises(ValueError, match=complaint):
        ask()


def test_nine_looks_answer_with_the_mean_probability():
    images, values = IMAGES[:, :5, :7], torch.randn(35, 10)
    moves = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2))
    views = torch.stack([shifted(images, move.expand(25, 2), 1) for move in moves])
    wanted = (views.flatten(2) @ values).softmax(2).mean(0).log()
    torch.testing.assert_close(nine_looks(lambda view: view.flatten(1) @ values, images), wanted, rtol=1e-4, atol=1e-4)
    sure = torch.tensor([[0.0]*9 + [1000.0]])
    assert nine_looks(lambda view: sure, images).equal(sure.log_softmax(1))


def assert_trained_as_by_hand(found, by_hand, mnist, recipe, start, seed):
    "The same training with the parts of the lesson: AdamW, one cycle, smoothed labels."
    net = ConvNet(recipe.channels, shift=recipe.shift, warp=recipe.warp, dropout=recipe.dropout, seed=start)
    images, labels = mnist.train[:]
    rates = iter(by_hand["one_cycle_rates"](recipe.lr, recipe.epochs*math.ceil(len(images)/recipe.batch_size)))
    descent = by_hand["AdamW"](list(net.parameters()), lr=0.0, weight_decay=recipe.weight_decay)
    order = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    for _ in range(recipe.epochs):
        for batch in torch.randperm(len(images), generator=order).split(recipe.batch_size):
            descent.lr, targets = next(rates), by_hand["soft_targets"](labels[batch], recipe.smoothing)
            net.zero_grad()
            (-(targets*net(images[batch]).log_softmax(1)).sum(1).mean()).backward()
            descent.step()
    # The median: AdamW may move a weight the other way where rounding decides the sign of its gradient.
    assert (weights(found) - weights(net)).abs().median() < 2e-4


@pytest.mark.parametrize("change", [
    {}, {"channels": (4, 5, 3)}, {"epochs": 1}, {"dropout": 0.0}, {"lr": 0.005}, {"shift": 0}, {"shift": 1},
    {"warp": True}, {"batch_size": 50}, {"weight_decay": 0.5}, {"smoothing": 0.4}], ids=str)
def test_every_setting_of_a_recipe_does_what_it_says(by_hand, easy, change):
    recipe = replace(SMALL, **change)
    net = train(easy, recipe, seed=3)
    assert_trained_as_by_hand(net, by_hand, easy, recipe, start=3, seed=3)
    assert not net.training and len(net.history.valid_accuracy) == recipe.epochs
    assert net.history.valid_accuracy[-1] == evaluate(net, easy.valid).accuracy < 0.9


def test_the_usual_recipe_and_the_usual_seed(by_hand, easy, monkeypatch):
    monkeypatch.setitem(RECIPES, "fast", SMALL)
    assert_trained_as_by_hand(train(easy), by_hand, easy, SMALL, start=0, seed=0)


def test_the_figures_of_the_recipes():
    "Channels, epochs, largest rate, batch; shift, warp; dropout, decay, smoothing."
    assert {name: astuple(recipe) for name, recipe in RECIPES.items()} == {
        "fast": ((16, 32, 64), 1, 0.02, 256, 0, False, 0.0, 0.01, 0.05),
        "balanced": ((16, 32, 96), 6, 0.04, 256, 2, False, 0.0, 0.01, 0.05),
        "accurate": ((32, 64, 64, 128), 20, 0.01, 128, 2, True, 0.2, 0.01, 0.05)}
