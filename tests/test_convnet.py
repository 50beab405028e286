"""The convolutional net: the parts built by hand agree with PyTorch, shifts keep the ink, a seed decides a run."""
import json
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from conftest import ROOT, read_notebook
from torch import nn
from torch.nn import functional as F

from mnist_scratch.convnet import (
    RECIPES,
    ConvNet,
    NineLooks,
    RandomShift,
    RandomWarp,
    Recipe,
    built,
    learn,
    one_cycle,
    shifted,
    train,
    warped,
    with_valid,
)
from mnist_scratch.data import MNIST, Digits, load_mnist
from mnist_scratch.shapes import ShapeError
from mnist_scratch.training import evaluate

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"))


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


@pytest.mark.parametrize("way", ["by_loops", "by_unfolding"])
@pytest.mark.parametrize("shapes", [
    ((2, 3, 7, 9), (4, 3, 3, 2)), ((1, 1, 5, 5), (1, 1, 5, 5)), ((3, 2, 4, 6), (5, 2, 1, 1)),
])
def test_convolution_by_hand(by_hand, generator, way, shapes):
    pictures, windows = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes)
    result = by_hand[way](pictures, windows)
    assert torch.allclose(result.double(), F.conv2d(pictures, windows), atol=1e-5)


def test_pooling_by_hand(by_hand, generator):
    pictures = torch.randn(2, 3, 8, 6, generator=generator)
    assert by_hand["max_pool"](pictures).equal(F.max_pool2d(pictures, 2))


def test_batch_norm_by_hand(by_hand, generator):
    ours, theirs = by_hand["BatchNorm"](3), nn.BatchNorm2d(3)
    with torch.no_grad():
        ours.scale, ours.shift = torch.rand(3, generator=generator), torch.rand(3, generator=generator)
        theirs.weight.copy_(ours.scale), theirs.bias.copy_(ours.shift)
        for _ in range(3):
            pictures = 2 * torch.randn(4, 3, 5, 6, generator=generator) + 1
            assert torch.allclose(ours(pictures, training=True), theirs(pictures), atol=1e-5)
        theirs.eval()
        assert torch.allclose(ours(pictures, training=False), theirs(pictures), atol=1e-5)
    assert torch.allclose(ours.mean, theirs.running_mean) and torch.allclose(ours.variance, theirs.running_var)


@pytest.mark.parametrize("options", [{"fused": False}, {"fused": True}])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_adamw_by_hand(by_hand, generator, options, weight_decay):
    first = [torch.randn(3, 4, generator=generator), torch.randn(5, generator=generator)]
    ours, theirs = ([value.clone().requires_grad_() for value in first] for _ in range(2))
    mine = by_hand["AdamW"](ours, lr=0.03, weight_decay=weight_decay)
    other = torch.optim.AdamW(theirs, lr=0.03, weight_decay=weight_decay, **options)
    for _ in range(10):
        for parameters, optimizer in ((ours, mine), (theirs, other)):
            for parameter in parameters:
                parameter.grad = None
            sum((parameter**3 - parameter).sum() for parameter in parameters).backward()
            optimizer.step()
    assert all(torch.allclose(one, two, atol=1e-5) for one, two in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("n_steps", [10, 24, 391, 1000])
def test_one_cycle_by_hand(by_hand, n_steps):
    optimizer, rates = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3), []
    scheduler = one_cycle(optimizer, n_steps)
    for _ in range(n_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert all(math.isclose(one, two, rel_tol=1e-6, abs_tol=1e-9)
               for one, two in zip(by_hand["one_cycle_rates"](0.3, n_steps), rates, strict=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.05, 0.5, 1.0])
def test_label_smoothing_by_hand(by_hand, generator, smoothing):
    logits, labels = 5 * torch.randn(30, 10, generator=generator), torch.arange(30) % 10
    targets = by_hand["soft_targets"](labels, smoothing)
    by_targets = -(targets * logits.log_softmax(1)).sum(1).mean()
    assert torch.allclose(by_targets, F.cross_entropy(logits, labels, label_smoothing=smoothing), atol=1e-5)


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


def test_shifts_keep_the_ink_and_draw_from_the_generator_that_is_seeded(generator):
    images = F.pad(torch.rand(500, 24, 24, generator=generator), (2,) * 4)
    layer = RandomShift(2)
    torch.manual_seed(1)
    moved = layer(images)
    torch.manual_seed(1)
    assert layer(images).equal(moved)
    assert moved.flatten(1).sort().values.equal(images.flatten(1).sort().values)
    assert len({(tuple((one.sum(1) > 0).tolist()), tuple((one.sum(0) > 0).tolist())) for one in moved}) == 25
    assert layer.eval()(images) is images and RandomShift(0)(images) is images


@pytest.mark.parametrize("six", [
    [[1, 0, 0], [0, 1, 0]], [[0.8, 0, 0], [0, 1.3, 0]], [[1, 0.3, 0], [-0.3, 1, 0]], [[1, 0, 2.5], [0, 1, -30]],
    [[0, 1, 0], [-1, 0, 0]],
], ids=["as it is", "stretched", "turned", "moved", "a quarter turn"])
def test_warped_looks_where_the_six_numbers_say(by_hand, generator, six):
    image, six = torch.rand(28, 28, generator=generator), torch.tensor(six, dtype=torch.float32)
    half_images = six * torch.tensor([1, 1, 1 / 14])
    by_looking = by_hand["by_looking"](image, six)
    assert torch.allclose(warped(image[None], half_images[None])[0], by_looking, atol=1e-4)


def test_warping_is_of_each_image_its_own_and_none_in_use(generator):
    images = torch.rand(1, 28, 28, generator=generator).expand(200, 28, 28)
    layer = RandomWarp(shift=2)
    torch.manual_seed(1)
    first = layer(images)
    torch.manual_seed(1)
    assert layer(images).equal(first) and not layer(images).equal(first)
    assert len(first.flatten(1).unique(dim=0)) == 200
    assert layer.eval()(images) is images
    nothing = RandomWarp(shift=0, stretch=0, slant=0)
    assert torch.allclose(nothing(images), images, atol=1e-5)


@pytest.mark.parametrize(("settings", "row", "column"), [
    ({"shift": 3, "stretch": 0, "slant": 0}, 3, 3), ({"shift": 0, "stretch": 0.1, "slant": 0}, 0.1 * 13.5, 0.1 * 13.5),
    ({"shift": 0, "stretch": 0, "slant": 0.2}, 0.2 * 13.5, 0.2 * 13.5),
])
def test_a_warp_moves_no_place_further_than_it_may(settings, row, column):
    "Images that hold in each pixel where it is: after warping they say where each place has looked."
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    layer, seen = RandomWarp(**settings), []
    for image in (rows, columns):
        torch.manual_seed(0)  # the same maps for both
        seen.append(layer(image.expand(500, 28, 28)))
    inside = (slice(None), slice(9, 19), slice(9, 19))  # far from the rim, where paper comes in
    for looked, where, most in zip(seen, (rows, columns), (row, column), strict=True):
        far = (looked - where)[inside].abs().max().item()
        assert 0.2 * most < far <= most + 1e-3


def test_wrong_maps_are_refused():
    with pytest.raises(ShapeError, match="warped.* maps should be"):
        warped(torch.zeros(3, 28, 28), torch.zeros(2, 2, 3))


@pytest.mark.parametrize(("images", "moves"), [
    (torch.zeros(3, 28, 28), torch.zeros(2, 2, dtype=torch.int64)),
    (torch.zeros(3, 28, 28), torch.zeros(3, 2)),
    (torch.zeros(3, 1, 28, 28), torch.zeros(3, 2, dtype=torch.int64)),
], ids=["too few moves", "half pixels", "channel axis"])
def test_wrong_moves_are_refused(images, moves):
    with pytest.raises(ShapeError, match="shifted"):
        shifted(images, moves, 2)


@pytest.mark.parametrize("move", [[3, 0], [0, -3]], ids=str)
def test_moves_further_than_the_frame_are_refused(move):
    with pytest.raises(ValueError, match=r"^shifted\(\): moves should lie between -2 and 2, got -?3$"):
        shifted(torch.zeros(2, 28, 28), torch.tensor([[1, -2], move]), 2)
    with pytest.raises(ValueError, match=r"^RandomShift\(\): most should not be negative, got -1$"):
        ConvNet(shift=-1)


def test_too_many_stages_are_refused():
    with pytest.raises(ValueError, match=r"^ConvNet\(\): stage 5 would get pictures of 1 x 1 pixels.* fewer pools\.$"):
        ConvNet(channels=(8,) * 6)


@pytest.mark.parametrize("wrong", [(28, 28), (2, 1, 28, 28), (2, 784), (2, 29, 29), (2, 32, 32)], ids=str)
def test_wrong_images_are_refused(wrong):
    with pytest.raises(ShapeError, match="ConvNet.* images should be"):
        ConvNet()(torch.zeros(wrong))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64])
def test_wrong_numbers_are_refused(dtype):
    with pytest.raises(ShapeError, match="images should be"):
        ConvNet()(torch.zeros(2, 28, 28, dtype=dtype))


@pytest.mark.parametrize("options", [{}, {"pools": 0}, {"norm": False}, {"pools": 0, "norm": False},
                                     {"channels": (1, 1, 1)}, {"shift": 3}, {"warp": True},
                                     {"channels": (2,)}, {"channels": (4, 4, 4, 4, 4), "pools": 1}, {"dropout": 0.5}],
                         ids=str)
def test_every_net_gives_ten_logits_an_image(options):
    net = ConvNet(**options)
    assert net(torch.rand(3, 28, 28)).shape == (3, 10)
    assert net.eval()(torch.rand(1, 28, 28)).shape == (1, 10)


def test_building_a_net_is_decided_by_its_seed_and_leaves_pytorchs_generator_alone():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (list(ConvNet(seed=seed).parameters()) for seed in (1, 1, 2))
    assert torch.rand(3).equal(wanted)
    assert all(one.equal(two) for one, two in zip(first, again, strict=True))
    assert not first[0].equal(other[0])


@pytest.fixture
def easy(generator) -> MNIST:
    "Ten patterns with noise."
    patterns, labels = torch.rand(10, 28, 28, generator=generator), torch.arange(300) % 10
    images = (patterns[labels] + 0.1 * torch.rand(300, 28, 28, generator=generator)).clamp(0, 1)
    piles = [Digits(images[part], labels[part]) for part in torch.arange(300).split([200, 50, 50])]
    return MNIST(*piles, name="patterns")


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_the_same_seed_gives_the_same_weights(easy, device):
    mnist = MNIST(*(pile.to(device) for pile in (easy.train, easy.valid, easy.test)), name=easy.name)
    recipe = Recipe(channels=(4, 8, 8), epochs=2, shift=2, batch_size=32)

    def weights(seed: int) -> torch.Tensor:
        net = ConvNet(recipe.channels, recipe.shift, seed=seed, device=device)
        learn(net, mnist, recipe, seed)
        return torch.cat([value.float().flatten() for value in net.state_dict().values()])

    assert weights(3).equal(weights(3)) if device == "cpu" else torch.allclose(weights(3), weights(3), atol=1e-3)
    assert not weights(3).equal(weights(4))


@pytest.mark.parametrize("recipe", RECIPES)
def test_train_follows_the_recipe(easy, recipe, monkeypatch):
    chosen = replace(RECIPES[recipe], epochs=2)
    monkeypatch.setitem(RECIPES, recipe, chosen)
    model = train(easy, recipe, seed=1)
    assert len(model.history.valid_accuracy) == 2 and not model.training
    assert isinstance(model, NineLooks if chosen.nine_looks else ConvNet)
    net = model.net if chosen.nine_looks else model
    assert model.history.valid_accuracy[-1] == evaluate(net, easy.valid).accuracy
    again = built(chosen, seed=1)
    assert isinstance(net.augment, RandomWarp if chosen.warp else RandomShift)
    learn(again, with_valid(easy) if chosen.use_valid else easy, replace(chosen, use_valid=False), seed=1)
    assert all(one.equal(two) for one, two in zip(net.parameters(), again.parameters(), strict=True))


def test_with_valid_adds_the_validation_images_to_those_to_learn_from(easy):
    more = with_valid(easy)
    assert more.train.images.equal(torch.cat([easy.train.images, easy.valid.images]))
    assert more.train.labels.equal(torch.cat([easy.train.labels, easy.valid.labels]))
    assert (more.valid, more.test, more.name) == (easy.valid, easy.test, easy.name)


def test_nine_looks_answer_with_the_mean_probability(generator):
    images = F.pad(torch.rand(4, 24, 24, generator=generator), (2,) * 4)
    net = ConvNet().eval()
    views = [F.pad(images, (right, -right, down, -down)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    with torch.no_grad():
        wanted = torch.stack([net(view).softmax(1) for view in views]).mean(0)
        assert torch.allclose(NineLooks(net).eval()(images).softmax(1), wanted, atol=1e-5)
    with pytest.raises(ShapeError, match=r"NineLooks\(\): images should be .*28 28.*got float32 \(4, 784\)"):
        NineLooks(net).eval()(images.flatten(1))


def test_nine_looks_of_a_net_that_is_very_sure(generator):
    class Sure(nn.Module):
        def forward(self, images): return torch.tensor([[0.0] * 9 + [1000.0]]).expand(len(images), 10)

    images = torch.rand(2, 28, 28, generator=generator)
    assert torch.allclose(NineLooks(Sure()).eval()(images), torch.tensor([[-1000.0] * 9 + [0.0]]).expand(2, 10))


def test_nine_looks_learn_as_the_net_does(easy):
    alone, inside = ConvNet(seed=1), ConvNet(seed=1)
    for model in (alone, NineLooks(inside)):
        learn(model, easy, RECIPES["fast"])
    assert all(one.equal(two) for one, two in zip(alone.parameters(), inside.parameters(), strict=True))


def test_no_such_recipe(easy):
    with pytest.raises(ValueError, match=r"train\(\): recipe should be one of fast, balanced, accurate, got 'best'"):
        train(easy, "best")


def test_the_net_learns_the_sample(sample_folder):
    mnist = load_mnist(sample_folder)
    net = train(mnist, "fast", seed=0)
    assert evaluate(net, mnist.valid).accuracy > 0.85  # 0.93 to 0.95 seen, from 24 steps
    learn(net, mnist, Recipe(RECIPES["fast"].channels, epochs=4))
    assert evaluate(net, mnist.valid).accuracy > 0.94


def test_answers_do_not_depend_on_the_rest_of_the_batch(easy):
    net = train(easy, "fast")
    answers = evaluate(net, easy.valid, batch_size=50).confidence
    assert torch.allclose(answers, evaluate(net, easy.valid, batch_size=1).confidence, atol=1e-5)


def test_saved_results_are_whole():
    runs = json.loads((ROOT / "benchmarks" / "results" / "convnet.json").read_text(encoding="utf-8"))
    assert len({(run["name"], run["seed"], run["data"], run["machine"]) for run in runs}) == len(runs) > 0
    for run in runs:
        assert run["kind"] in ("recipe", "ladder") and run["seconds"] > 0
        learned_from_valid = run["name"] in RECIPES and RECIPES[run["name"]].use_valid
        assert run["valid_accuracy"] is None if learned_from_valid else 0.5 < run["valid_accuracy"] <= 1
        assert (run["test_accuracy"] is not None) == (run["name"] in ("public", *RECIPES)), "the test is for recipes"
    trained = {run["name"]: run for run in runs}
    for name, recipe in RECIPES.items():
        if name in trained:
            n_parameters = sum(parameter.numel() for parameter in built(recipe).parameters())
            assert trained[name]["parameters"] == n_parameters and trained[name]["epochs"] == recipe.epochs


smoothed = partial(F.cross_entropy, label_smoothing=RECIPES["fast"].smoothing)


def test_channels_last_changes_nothing_but_the_order_in_memory(generator):
    net, images = ConvNet(seed=2), torch.rand(4, 28, 28, generator=generator)
    usual = ConvNet(seed=2).to(memory_format=torch.contiguous_format)
    labels = torch.arange(4)
    losses = [smoothed(model(images), labels) for model in (net, usual)]
    assert torch.allclose(*losses, atol=1e-5)
