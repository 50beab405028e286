"""Our own autograd against PyTorch's and against nudging, and what must not happen on the way."""
import gc
import weakref

import numpy as np
import pytest
import torch
from own import OwnConvNet, OwnLayers
from record import FormerNet

from mnist_scratch.autograd import Tensor, batch_norm, conv2d, max_pool, result, windows
from mnist_scratch.checks import unchecked
from mnist_scratch.data import load_mnist
from mnist_scratch.linear import LinearModel
from mnist_scratch.losses import cross_entropy, sigmoid_mse, softmax_mse
from mnist_scratch.nets import TwoLayerNet
from mnist_scratch.training import evaluate, fit

OPERATIONS = {
    "add": lambda x, y: x + y, "add a number": lambda x, y: 2 + x + 3, "subtract": lambda x, y: x - y,
    "from a number": lambda x, y: 2 - x, "multiply": lambda x, y: x*y, "times a number": lambda x, y: 3*x*2,
    "less pixels": lambda x, y: x - torch.tensor([0, 200, 255], dtype=torch.uint8),
    "divide": lambda x, y: x/y, "a number over it": lambda x, y: 2/y, "over a number": lambda x, y: x/3,
    "power": lambda x, y: y**2.5, "square": lambda x, y: x.square(), "negative": lambda x, y: -x,
    "to the nought": lambda x, y: (x - x)**0 + y,
    "exp": lambda x, y: x.exp(), "log": lambda x, y: y.log(), "sigmoid": lambda x, y: x.sigmoid(),
    "relu": lambda x, y: x.relu(), "torch's sigmoid": lambda x, y: torch.sigmoid(x), "sum": lambda x, y: x.sum(),
    "sum of an axis": lambda x, y: x.sum(0), "sum kept": lambda x, y: x.sum(1, keepdim=True),
    "mean": lambda x, y: x.mean(), "mean of an axis": lambda x, y: x.mean(-1), "amax": lambda x, y: x.amax(1),
    "amax kept": lambda x, y: x.amax(0, keepdim=True), "product": lambda x, y: x @ y.T,
    "product with plain": lambda x, y: x @ torch.ones(3, 2, dtype=x.detach().dtype),
    "plain on the left": lambda x, y: torch.ones(2, 4, dtype=x.detach().dtype) @ x,
    "plain, batched": lambda x, y: torch.ones(5, 3, 4, dtype=x.detach().dtype) @ x,
    "permute from the end": lambda x, y: x[:, None].permute(-1, 0, 1)*y.T[:, :, None],
    "reshape": lambda x, y: x.reshape(2, -1), "flatten": lambda x, y: x.flatten(),
    "permute": lambda x, y: x.permute(1, 0), "transpose": lambda x, y: x.transpose(0, 1)*y.T,
    "row": lambda x, y: x[1], "twice": lambda x, y: x[[0, 0, 2]],
    "new axis": lambda x, y: x[:, None]*y, "slice": lambda x, y: x[1:, ::2],
    "gather": lambda x, y: x.gather(1, torch.tensor([[0], [2], [1], [1]])),
}
WINDOWS = {
    "windows": lambda x, w: windows(x, 3), "strided": lambda x, w: windows(x, 3, stride=2),
    "convolution": lambda x, w: conv2d(x, w), "strided convolution": lambda x, w: conv2d(x, w, stride=2),
    "pooling": lambda x, w: max_pool(x), "batch norm": lambda x, w: batch_norm(x, w[0, 0, :2, 0], w[0, 0, :2, 1]),
}
THEIRS = {
    "windows": lambda x, w: x.unfold(2, 3, 1).unfold(3, 3, 1), "convolution": torch.conv2d,
    "strided": lambda x, w: x.unfold(2, 3, 2).unfold(3, 3, 2),
    "strided convolution": lambda x, w: torch.conv2d(x, w, stride=2),
    "pooling": lambda x, w: torch.max_pool2d(x, 2),
    "batch norm": lambda x, w: torch.nn.functional.batch_norm(x, None, None, w[0, 0, :2, 0], w[0, 0, :2, 1], True),
}


def inputs(*shapes) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1 for shape in shapes]


def gradients(operation, numbers: list[torch.Tensor], wrap) -> list[torch.Tensor]:
    "Of a weighted sum of what the operation gives, so that no two places are alike."
    own = [wrap(one.clone()) for one in numbers]
    made = operation(*own)
    weights = torch.arange(1.0, made.detach().numel() + 1, dtype=torch.float64).view(made.shape)
    (made*weights).sum().backward()
    return [made.detach(), *(torch.zeros_like(one) if mine.grad is None else mine.grad
                             for mine, one in zip(own, numbers))]


@pytest.mark.parametrize("name", [*OPERATIONS, *WINDOWS])
def test_every_operation_agrees_with_pytorch_and_with_nudging(name):
    ours, theirs = (OPERATIONS[name],)*2 if name in OPERATIONS else (WINDOWS[name], THEIRS[name])
    numbers = inputs((4, 3), (4, 3)) if name in OPERATIONS else inputs((2, 2, 7, 6), (3, 2, 3, 3))
    got, wanted = gradients(ours, numbers, Tensor), gradients(theirs, numbers, lambda one: one.requires_grad_())
    for one, other in zip(got, wanted, strict=True):
        assert one.shape == other.shape and torch.allclose(one, other, rtol=1e-12, atol=1e-13)
    place, step = (0,)*numbers[0].ndim, 1e-5
    def value(nudge: float) -> float:
        (first := numbers[0].clone())[place] += nudge
        made = theirs(first, *numbers[1:])
        return (made*torch.arange(1.0, made.numel() + 1, dtype=torch.float64).view(made.shape)).sum().item()
    assert got[1][place].item() == pytest.approx((value(step) - value(-step))/(2*step), rel=1e-4, abs=1e-4)


def test_broadcasting_backwards_agrees_with_pytorch_on_ten_thousand_pairs_of_shapes():
    generator = torch.Generator().manual_seed(0)
    def number(high: int) -> int: return torch.randint(high, (), generator=generator).item()
    worst = 0.0
    for trial in range(10_000):
        whole = [number(4) for _ in range(number(4))]
        shapes = [[1 if number(3) == 0 else side for side in whole][number(len(whole) + 1):] for _ in "xy"]
        numbers = [torch.rand(shape, generator=generator, dtype=torch.float64) + 0.5 for shape in shapes]
        operation = (lambda x, y: x + y, lambda x, y: x - y, lambda x, y: x*y, lambda x, y: x/y)[trial % 4]
        ours, theirs = [Tensor(one.clone()) for one in numbers], [one.clone().requires_grad_() for one in numbers]
        operation(*ours).sum().backward()
        operation(*theirs).sum().backward()
        for one, other in zip(ours, theirs):
            assert one.grad.shape == other.grad.shape
            worst = max(worst, (one.grad - other.grad).abs().max().item() if other.grad.numel() else 0.0)
    assert worst <= 1e-14


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("build, activation, loss", [
    *((LinearModel.random, None, loss) for loss in (sigmoid_mse, softmax_mse, cross_entropy)),
    (TwoLayerNet, torch.sigmoid, cross_entropy), (TwoLayerNet, torch.relu, cross_entropy)])
def test_fit_and_evaluate_cannot_tell_it_from_pytorch(sample_folder, build, activation, loss, threads):
    mnist, before = load_mnist(sample_folder, device="cpu"), torch.get_num_threads()
    settings = {} if activation is None else {"activation": activation}
    theirs, ours = build(**settings), OwnLayers(build(**settings), activation)
    torch.set_num_threads(threads)
    try:
        courses = [fit(model, mnist.train, mnist.valid, loss=loss, epochs=5, lr=1.0) for model in (theirs, ours)]
    finally:
        torch.set_num_threads(before)
    assert courses[0].train_loss == pytest.approx(courses[1].train_loss, abs=1e-6)
    for one, other in zip(theirs.parameters(), ours.parameters(), strict=True):
        assert (one - other).abs().max() <= 1e-6
    assert evaluate(ours, mnist.valid).accuracy == evaluate(theirs, mnist.valid).accuracy


def test_the_gradients_of_a_convolutional_net_are_pytorchs():
    theirs = FormerNet(0, torch.device("cpu")).double()
    ours = OwnConvNet(FormerNet(0, torch.device("cpu")).double())
    (images,), labels = inputs((32, 28, 28)), torch.arange(32) % 10
    with unchecked():
        cross_entropy(ours(images), labels).backward()
    cross_entropy(theirs(images), labels).backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert (mine.grad - other.grad).abs().max() <= 1e-12*max(1, other.grad.abs().max())


def test_a_chain_of_300_000_operations_goes_back_and_another_is_dropped():
    start = Tensor(torch.tensor(1.0, dtype=torch.float64))
    for ends in (True, False):
        last = start
        for _ in range(300_000):
            last = last + 1e-6
        if ends:
            last.backward()
            assert start.grad == 1
        del last


def test_nothing_is_left_alive_after_a_step():
    gc.disable()
    try:
        parameter = torch.rand(3, 3, requires_grad=True)
        made = [(Tensor(parameter) @ torch.rand(3, 2)).sigmoid()]
        made.append(made[0].sum())
        made[-1].backward()
        left = [weakref.ref(one) for one in made]
        made.clear()
        assert [one() for one in left] == [None, None] and parameter.grad.shape == (3, 3)
    finally:
        gc.enable()


def test_what_cannot_work_is_one_error_and_changes_nothing():
    x = Tensor([1.0, 2.0])
    with pytest.raises(ValueError, match=r"needs one number, not \(2,\); take the sum or mean"):
        (x*2).backward()
    part = x*x
    part.sum().backward()
    before = x.grad.clone()
    for again in (part.sum(), (part + 1).sum()):
        with pytest.raises(ValueError, match="was here before"):
            again.backward()
    assert x.grad.equal(before)
    with pytest.raises(ValueError, match=r"make them Tensor\(parameter\)"):
        x*torch.ones(2, requires_grad=True)


def test_numpy_on_the_left_vectors_and_shared_gradients():
    x = Tensor([1.0, 2.0])
    assert (np.ones(2, np.float32)*x).data.tolist() == [1, 2]
    with pytest.raises(ValueError, match="@ needs two matrices"):
        torch.ones(3, 2) @ x
    one, other = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    (Tensor(one) + Tensor(other)).sum().backward()
    one.grad[0] = 7
    assert one.grad.tolist() == [7, 1] and other.grad.tolist() == [1, 1]


def test_gradients_add_up_constants_get_none_and_no_grad_gives_plain_numbers():
    x, constant = Tensor([1, 2]), torch.tensor([3.0, 4.0])
    for _ in range(2):
        (x*constant).sum().backward()
    assert x.grad.tolist() == [6, 8] and constant.grad is None and x.data.dtype == torch.float32
    with torch.no_grad():
        assert type((x*constant).sum()) is torch.Tensor
    assert type(result(constant)) is torch.Tensor
