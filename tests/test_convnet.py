"""The convolutional net: parts by hand agree with PyTorch; every setting and seed of a recipe does what it says."""
import json
import math
from dataclasses import replace

import pytest
import torch
from conftest import ROOT, read_notebook
from torch import nn
from torch.nn import functional as F

from mnist_scratch.checks import ShapeError
from mnist_scratch.convnet import (
    PIXEL_MEAN,
    PIXEL_STD,
    RECIPES,
    ConvNet,
    RandomShift,
    RandomWarp,
    Recipe,
    built,
    learn,
    nine_looks,
    one_cycle,
    shifted,
    train,
    warped,
)
from mnist_scratch.data import MNIST, Digits, load_mnist
from mnist_scratch.training import evaluate


@pytest.fixture(scope="module")
def by_hand() -> dict:
    "What notebook 07 defines by hand; its cells are run for that, as far as they hold only definitions."
    scope = {}
    exec("import math, torch\nfrom torch import Tensor, nn\nfrom torch.nn import functional as F\n"
         "from jaxtyping import Float, Int64", scope)
    for cell in read_notebook(ROOT / "nbs" / "07_convnet.ipynb")["cells"]:
        source = "".join(cell["source"])
        for name in ("by_loops", "by_unfolding", "max_pool", "BatchNorm", "AdamW", "half_wave", "soft_targets",
                     "value_at", "by_looking"):
            if cell["cell_type"] == "code" and source.startswith((f"def {name}(", f"class {name}:")):
                exec(source.split("\n\n" + name)[0], scope)
    return scope


def test_convolution_and_pooling_by_hand(by_hand, generator):
    for shapes in (((2, 3, 7, 9), (4, 3, 3, 2)), ((1, 1, 5, 5), (1, 1, 5, 5)), ((3, 2, 4, 6), (5, 2, 1, 1))):
        pictures, windows = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes)
        for way in ("by_loops", "by_unfolding"):
            assert torch.allclose(by_hand[way](pictures, windows).double(), F.conv2d(pictures, windows), atol=1e-5)
    pictures = torch.randn(2, 3, 8, 6, generator=generator)
    assert by_hand["max_pool"](pictures).equal(F.max_pool2d(pictures, 2))


def test_batch_norm_by_hand(by_hand, generator):
    ours, theirs = by_hand["BatchNorm"](3), nn.BatchNorm2d(3)
    with torch.no_grad():
        ours.scale, ours.shift = torch.rand(3, generator=generator), torch.rand(3, generator=generator)
        theirs.weight.copy_(ours.scale), theirs.bias.copy_(ours.shift)
        for _ in range(3):
            pictures = 2*torch.randn(4, 3, 5, 6, generator=generator) + 1
            assert torch.allclose(ours(pictures, training=True), theirs(pictures), atol=1e-5)
        assert torch.allclose(ours(pictures, training=False), theirs.eval()(pictures), atol=1e-5)
    assert torch.allclose(ours.mean, theirs.running_mean) and torch.allclose(ours.variance, theirs.running_var)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_adamw_by_hand(by_hand, generator, weight_decay):
    first = [torch.randn(3, 4, generator=generator), torch.randn(5, generator=generator)]
    ours, theirs = ([value.clone().requires_grad_() for value in first] for _ in range(2))
    mine = by_hand["AdamW"](ours, lr=0.03, weight_decay=weight_decay)
    other = torch.optim.AdamW(theirs, lr=0.03, weight_decay=weight_decay, fused=True)
    for _ in range(10):
        for parameters, optimizer in ((ours, mine), (theirs, other)):
            for parameter in parameters:
                parameter.grad = None
            sum((parameter**3 - parameter).sum() for parameter in parameters).backward()
            optimizer.step()
    assert all(torch.allclose(one, two, atol=1e-5) for one, two in zip(ours, theirs, strict=True))


def cycle(lr: float, n_steps: int) -> list[float]:
    "From a tenth of lr to lr in three tenths of the steps, then to a hundred thousandth, along half waves of a cosine."
    def wave(start, end, x): return end + (start - end)*(1 + math.cos(math.pi*x))/2
    top, last = 0.3*n_steps - 1, n_steps - 1
    return [wave(lr/10, lr, step/top) if step <= top else wave(lr, lr/1e5, (step - top)/(last - top))
            for step in range(n_steps)]


@pytest.mark.parametrize("n_steps", [10, 24, 391])
def test_one_cycle(by_hand, n_steps):
    optimizer, rates = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3, momentum=0.9), []
    scheduler = one_cycle(optimizer, n_steps)
    for _ in range(n_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        assert optimizer.param_groups[0]["momentum"] == 0.9
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx(cycle(0.3, n_steps), rel=1e-6, abs=1e-9)
    assert rates == pytest.approx(by_hand["one_cycle_rates"](0.3, n_steps), rel=1e-6, abs=1e-9)


def test_label_smoothing_by_hand(by_hand, generator):
    logits, labels = 5*torch.randn(30, 10, generator=generator), torch.arange(30) % 10
    for smoothing in (0.0, 0.05, 1.0):
        by_targets = -(by_hand["soft_targets"](labels, smoothing)*logits.log_softmax(1)).sum(1).mean()
        assert torch.allclose(by_targets, F.cross_entropy(logits, labels, label_smoothing=smoothing), atol=1e-5)


# Moved images


def test_shifted_moves_each_image_by_its_own_move(generator):
    images = torch.rand(25, 6, 7, generator=generator)
    moves = torch.cartesian_prod(torch.arange(-2, 3), torch.arange(-2, 3))
    for image, (down, right), result in zip(images, moves.tolist(), shifted(images, moves, 2), strict=True):
        wanted = torch.zeros(6, 7)
        for row in range(6):
            for column in range(7):
                if 0 <= row - down < 6 and 0 <= column - right < 7:
                    wanted[row, column] = image[row - down, column - right]
        assert result.equal(wanted)


@pytest.mark.parametrize("layer", [RandomShift(2), RandomWarp(2)], ids=["shift", "warp"])
def test_random_moves_are_each_images_own_decided_by_the_seed_and_none_in_use(generator, layer):
    images, drawn = torch.rand(1, 28, 28, generator=generator).expand(500, 28, 28), []
    for _ in range(2):
        torch.manual_seed(1)
        drawn.append(layer.train()(images))
    assert drawn[0].equal(drawn[1]) and not drawn[0].equal(layer(images))
    assert len(drawn[0].flatten(1).unique(dim=0)) == (25 if isinstance(layer, RandomShift) else 500)
    assert layer.eval()(images) is images and RandomShift(0).train()(images) is images


def test_shifts_keep_the_ink(generator):
    images = F.pad(torch.rand(500, 24, 24, generator=generator), (2,)*4)
    assert RandomShift(2)(images).flatten(1).sort().values.equal(images.flatten(1).sort().values)


@pytest.mark.parametrize("six", [
    [[0.8, 0, 0], [0, 1.3, 0]], [[1, 0.3, 0], [-0.3, 1, 0]], [[1, 0, 2.5], [0, 1, -30]], [[0, 1, 0], [-1, 0, 0]],
], ids=["stretched", "turned", "moved", "a quarter turn"])
def test_warped_looks_where_the_six_numbers_say(by_hand, generator, six):
    image, six = torch.rand(28, 28, generator=generator), torch.tensor(six, dtype=torch.float32)
    half_images = six*torch.tensor([1, 1, 1/14])
    assert torch.allclose(warped(image[None], half_images[None])[0], by_hand["by_looking"](image, six), atol=1e-4)


@pytest.mark.parametrize("side", [28, 56])
@pytest.mark.parametrize("settings, most", [({"shift": 3, "stretch": 0, "slant": 0}, lambda side: 3),
                                            ({"shift": 0, "stretch": 0.1, "slant": 0}, lambda side: 0.1*side/2),
                                            ({"shift": 0, "stretch": 0, "slant": 0.2}, lambda side: 0.2*side/2)])
def test_a_warp_moves_no_place_further_than_it_may_and_uses_what_it_may(side, settings, most):
    "Images that hold in each pixel where it is: after warping they say where each place has looked. At any size."
    rows, columns = torch.meshgrid(torch.arange(float(side)), torch.arange(float(side)), indexing="ij")
    layer, inside = RandomWarp(**settings), (slice(None), *(slice(side//4, 3*side//4),)*2)
    for image in (rows, columns):
        torch.manual_seed(0)
        far = (layer(image.expand(500, side, side)) - image)[inside].abs().max().item()
        assert 0.4*most(side) < far <= most(side) + 1e-3


# The net


@pytest.mark.parametrize("options, n_parameters", [
    ({}, 21_714), ({"pools": 0}, None), ({"norm": False}, None), ({"channels": (2,)}, None), ({"warp": True}, 21_714),
    ({"channels": (4,)*5, "pools": 1, "dropout": 0.5}, None)], ids=str)
def test_every_net_gives_ten_logits_an_image(options, n_parameters):
    net = ConvNet(**options)
    assert net(torch.rand(3, 28, 28)).shape == (3, 10) and net.eval()(torch.rand(1, 28, 28)).shape == (1, 10)
    kinds = [type(part) for part in net.network]
    channels = options.get("channels", (8, 24, 64))
    assert kinds.count(nn.Conv2d) == len(channels)
    assert kinds.count(nn.MaxPool2d) == min(options.get("pools", 2), len(channels))
    assert kinds.count(nn.BatchNorm2d) == (len(channels) if options.get("norm", True) else 0)
    assert all((part.bias is None) == options.get("norm", True) for part in net.network if isinstance(part, nn.Conv2d))
    assert n_parameters in (None, sum(parameter.numel() for parameter in net.parameters()))


def test_the_net_is_what_the_lesson_says(generator):
    images, net = torch.rand(4, 28, 28, generator=generator), ConvNet(seed=2).eval()
    first, second, third, last = (part for part in net.network if isinstance(part, (nn.Conv2d, nn.Linear)))
    norms = iter([part for part in net.network if isinstance(part, nn.BatchNorm2d)])
    values = (images[:, None] - 0.1307)/0.3081
    for convolution, pools in ((first, True), (second, True), (third, False)):
        values = F.conv2d(values, convolution.weight)
        values = next(norms)(F.max_pool2d(values, 2) if pools else values).relu()
    assert (PIXEL_MEAN, PIXEL_STD) == (0.1307, 0.3081)
    torch.testing.assert_close(net(images), last(values.flatten(1)))
    assert all(part.weight.is_contiguous(memory_format=torch.channels_last) for part in (second, third))


def test_building_is_decided_by_the_seed_and_leaves_pytorchs_generator_alone():
    before = torch.random.get_rng_state()
    first, again, other = (list(ConvNet(seed=seed).parameters()) for seed in (1, 1, 2))
    assert torch.random.get_rng_state().equal(before)
    assert all(one.equal(two) for one, two in zip(first, again, strict=True)) and not first[0].equal(other[0])


@pytest.mark.parametrize("wrong", [torch.zeros(28, 28), torch.zeros(2, 1, 28, 28), torch.zeros(2, 32, 32),
                                   torch.zeros(2, 28, 28).double(), torch.zeros(2, 28, 28, dtype=torch.uint8)],
                         ids=lambda value: f"{value.dtype} {tuple(value.shape)}")
def test_wrong_images_are_refused(wrong):
    with pytest.raises(ShapeError, match=r"ConvNet\(\): images should be"):
        ConvNet()(wrong)


@pytest.mark.parametrize("move", [[3, 0], [0, -3]], ids=str)
def test_moves_further_than_the_frame_are_refused(move):
    with pytest.raises(ValueError, match=r"^shifted\(\): moves should lie between -2 and 2, got -?3$"):
        shifted(torch.zeros(2, 28, 28), torch.tensor([[1, -2], move]), 2)
    with pytest.raises(ValueError, match=r"^RandomShift\(\): most should not be negative, got -1$"):
        ConvNet(shift=-1)


def test_too_many_stages_are_refused():
    with pytest.raises(ValueError, match=r"^ConvNet\(\): stage 5 would get pictures of 1 x 1 pixels.* fewer pools\.$"):
        ConvNet(channels=(8,)*6)


def test_nine_looks_answer_with_the_mean_probability(generator):
    images = F.pad(torch.rand(4, 24, 24, generator=generator), (2,)*4)
    net = ConvNet().eval()
    views = [F.pad(images, (right, -right, down, -down)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    with torch.no_grad():
        wanted = torch.stack([net(view).softmax(1) for view in views]).mean(0)
        assert torch.allclose(nine_looks(net, images).softmax(1), wanted, atol=1e-5)
        one_look = net(images)
        net.looks_nine_times = True
        assert torch.allclose(net(images).softmax(1), wanted, atol=1e-5) and not torch.allclose(net(images), one_look)
    sure = torch.tensor([[0.0]*9 + [1000.0]])
    answers = nine_looks(lambda view: sure.expand(len(view), 10), images)
    assert torch.allclose(answers, sure.log_softmax(1).expand(4, 10))


# Recipes


@pytest.fixture(scope="module")
def easy() -> MNIST:
    "Ten patterns with noise."
    generator = torch.Generator().manual_seed(0)
    patterns, labels = torch.rand(10, 28, 28, generator=generator)/2, torch.arange(300) % 10
    images = patterns[labels] + 0.1*torch.rand(300, 28, 28, generator=generator)
    piles = [Digits(images[part], labels[part]) for part in torch.arange(300).split([200, 50, 50])]
    return MNIST(*piles, name="patterns")


SMALL = Recipe(channels=(4, 6), epochs=2, pools=2, dropout=0.2, lr=0.02, shift=2, batch_size=32)


def weights(net) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in net.parameters()])


def by_loop(mnist: MNIST, recipe: Recipe, seed: int) -> torch.Tensor:
    "The same training written out: AdamW, one cycle, smoothed labels."
    net = ConvNet(recipe.channels, shift=recipe.shift, warp=recipe.warp, pools=recipe.pools, dropout=recipe.dropout,
                  seed=seed)
    images, labels = mnist.train[:]
    if recipe.use_valid:
        images, labels = torch.cat([images, mnist.valid.images]), torch.cat([labels, mnist.valid.labels])
    n_steps = recipe.epochs*math.ceil(len(images)/recipe.batch_size)
    rates, order = iter(cycle(recipe.lr, n_steps)), torch.Generator().manual_seed(seed)
    descent = torch.optim.AdamW(net.parameters(), lr=1.0, weight_decay=recipe.weight_decay)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for _ in range(recipe.epochs):
            for batch in torch.randperm(len(images), generator=order).split(recipe.batch_size):
                descent.param_groups[0]["lr"] = next(rates)
                targets = F.one_hot(labels[batch], 10)*(1 - recipe.smoothing) + recipe.smoothing/10
                loss = -(targets*net(images[batch]).log_softmax(1)).sum(1).mean()
                descent.zero_grad()
                loss.backward()
                descent.step()
    return weights(net)


CHANGES = [{}, {"channels": (4, 5)}, {"epochs": 1}, {"pools": 1}, {"dropout": 0.0}, {"lr": 0.005}, {"shift": 0},
           {"shift": 1}, {"warp": True}, {"use_valid": True}, {"batch_size": 50}, {"weight_decay": 0.5},
           {"smoothing": 0.4}]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_setting_of_a_recipe_does_what_it_says(easy, change):
    "As in the loop written out, and otherwise than without the change."
    recipe = replace(SMALL, **change)
    net = train(easy, recipe, seed=3)
    torch.testing.assert_close(weights(net), by_loop(easy, recipe, seed=3), rtol=1e-3, atol=2e-4)
    assert not net.training and len(net.history.valid_accuracy) == recipe.epochs
    assert net.history.valid_accuracy[-1] == evaluate(net, easy.valid).accuracy
    usual = weights(train(easy, SMALL, seed=3))
    assert not change or usual.shape != weights(net).shape or (usual - weights(net)).abs().max() > 1e-3


def test_a_seed_decides_weights_order_and_moves(easy):
    assert weights(train(easy, SMALL, seed=3)).equal(weights(train(easy, SMALL, seed=3)))
    assert not weights(train(easy, SMALL, seed=3)).equal(weights(train(easy, SMALL, seed=4)))
    same_start = []
    for seed in (3, 4):
        net = built(SMALL, seed=0)
        learn(net, easy, SMALL, seed)
        same_start.append(weights(net))
    assert not same_start[0].equal(same_start[1]), "the seed of learning decides, too"
    assert not weights(built(SMALL, seed=3)).equal(weights(built(SMALL, seed=4)))


def test_recipes_by_name(easy, monkeypatch):
    for name, chosen in RECIPES.items():
        monkeypatch.setitem(RECIPES, name, replace(chosen, epochs=1))
        net = train(easy, name, seed=1)
        assert isinstance(net, ConvNet) and net.looks_nine_times == chosen.nine_looks == (name == "accurate")
        assert isinstance(net.augment, RandomWarp if chosen.warp else RandomShift)
        assert weights(net).equal(weights(train(easy, replace(chosen, epochs=1), seed=1)))
    with pytest.raises(ValueError, match=r"train\(\): recipe should be one of fast, balanced, accurate, got 'best'"):
        train(easy, "best")


def test_the_net_learns_the_sample(sample_folder):
    mnist = load_mnist(sample_folder, "cpu")
    assert evaluate(train(mnist, replace(RECIPES["fast"], epochs=4)), mnist.valid).accuracy > 0.94


def test_saved_results_are_whole():
    runs = json.loads((ROOT / "benchmarks" / "results" / "convnet.json").read_text(encoding="utf-8"))
    assert len({(run["name"], run["seed"], run["data"], run["machine"]) for run in runs}) == len(runs) > 0
    for run in runs:
        assert run["kind"] in ("recipe", "ladder") and run["seconds"] > 0
        learned_from_valid = run["name"] in RECIPES and RECIPES[run["name"]].use_valid
        assert run["valid_accuracy"] is None if learned_from_valid else 0.5 < run["valid_accuracy"] <= 1
        assert (run["test_accuracy"] is not None) == (run["name"] in ("public", *RECIPES)), "the test is for recipes"
        if run["name"] in RECIPES:
            recipe = RECIPES[run["name"]]
            assert run["epochs"] == recipe.epochs and run["parameters"] == weights(built(recipe)).numel()
