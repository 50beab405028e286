"""The ResNet with fastai's own habits; how well it learns is shown by notebook 06."""
import os
import signal

import pytest
import torch
from fastai.learner import load_learner

from mnist_scratch.data import MNIST, Digits
from mnist_scratch.resnet import ResNet, resnet_learner
from mnist_scratch.training import evaluate


@pytest.fixture
def mnist(generator):
    images, labels = torch.rand(44, 28, 28, generator=generator)/2, torch.arange(44) % 10
    piles = [Digits(images[part], labels[part]) for part in torch.arange(44).split([23, 11, 10])]
    return MNIST(*piles, name="noise")


def weights(learner) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in learner.model.parameters()])


def seen(loader) -> torch.Tensor:
    return torch.cat([images[:, 0, 0, 0] for images, _ in loader])


def test_loaders_hold_every_image_once_with_its_label_in_a_new_order_each_epoch(mnist):
    learner = resnet_learner(mnist, batch_size=10)
    batches = list(learner.dls.train)
    assert [tuple(images.shape) for images, _ in batches] == [(10, 1, 28, 28), (10, 1, 28, 28), (3, 1, 28, 28)]
    for pile, loader in ((mnist.train, batches), (mnist.valid, list(learner.dls.valid))):
        images, labels = (torch.cat(part) for part in zip(*loader, strict=True))
        found = [(pile.images == image).all((1, 2)).nonzero().item() for image in images[:, 0]]
        assert sorted(found) == list(range(len(pile))) and pile.labels[found].equal(torch.Tensor(labels).long())
    first, second = seen(learner.dls.train), seen(learner.dls.train)
    assert not first.equal(second) and not first.equal(mnist.train.images[:, 0, 0])
    assert seen(resnet_learner(mnist, 10, seed=0).dls.train).equal(seen(batches)), "the seed decides the order"
    assert not seen(resnet_learner(mnist, 10, seed=1).dls.train).equal(seen(batches))


def test_a_seed_decides_a_run_and_the_learner_becomes_a_model(mnist):
    def trained(seed):
        learner = resnet_learner(mnist, batch_size=10, seed=seed)
        with learner.no_bar(), learner.no_logging():
            learner.fit_one_cycle(1, 0.01)
        return learner
    learner, again = trained(4), trained(4)
    assert learner.recorder.values == again.recorder.values and weights(learner).equal(weights(again))
    assert not weights(resnet_learner(mnist, seed=4)).equal(weights(resnet_learner(mnist, seed=5)))
    model = ResNet(learner)
    assert not model.training and model(mnist.valid.images[:1]).shape == (1, 10)
    assert model(mnist.valid.images).equal(model(mnist.valid.images)), "measuring must not switch it back to training"
    answers = evaluate(model, mnist.valid).predicted
    assert learner.recorder.values[-1][-1] == pytest.approx((answers == mnist.valid.labels).double().mean().item())


@pytest.mark.parametrize("wrong", ["no batch axis", "channel axis", "whole numbers", "float64"])
def test_wrong_images_are_refused(mnist, wrong):
    images = mnist.valid.images
    given = {"no batch axis": images[0], "channel axis": images[:, None], "whole numbers": images.to(torch.uint8),
             "float64": images.double()}[wrong]
    with pytest.raises(ValueError, match=r"^ResNet\(\): images should be Float32\["), torch.no_grad():
        ResNet(resnet_learner(mnist))(given)


def test_the_habits_of_fastai(mnist, tmp_path):
    learner = resnet_learner(mnist, batch_size=10)
    learner.path = tmp_path
    with learner.no_bar():
        probabilities, labels = learner.get_preds()
        assert probabilities.shape == (11, 10) and torch.Tensor(labels).long().equal(mnist.valid.labels)
        name, index, shares = learner.predict(mnist.valid.images[3])
        assert str(index.item()) == name and torch.allclose(shares, probabilities[3], atol=1e-5)
        learner.show_results(max_n=4)
        learner.show_results(ds_idx=0, max_n=2)
        learner.dls.show_batch(max_n=2)
        learner.export("ours.pkl")
    loaded = load_learner(tmp_path / "ours.pkl")
    with loaded.no_bar():
        assert torch.allclose(loaded.predict(mnist.valid.images[3])[2], shares, atol=1e-5)
    assert len(loaded.dls.train_ds) == 0, "the images stay at home"


def test_an_error_leaves_no_handler_that_swallows_the_next_interrupts(mnist):
    learner, before = resnet_learner(mnist, batch_size=5), signal.getsignal(signal.SIGINT)
    learner.loss_func = lambda *given, **options: 1/0
    with learner.no_bar(), learner.no_logging(), pytest.raises(ZeroDivisionError):
        learner.fit_one_cycle(1, 0.01)
    with pytest.raises(KeyboardInterrupt):
        for _ in range(2):
            signal.getsignal(signal.SIGINT)(signal.SIGINT, None)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_ends_the_training_and_keeps_what_was_learned(mnist, capsys):
    learner, before = resnet_learner(mnist, batch_size=5), signal.getsignal(signal.SIGINT)
    at_first, steps = weights(learner), []
    def loss(*given, inner=learner.loss_func, **options):
        steps.append(1)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return inner(*given, **options)
    learner.loss_func = loss
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(3, 0.01)
    assert len(steps) == 3 and not weights(learner).equal(at_first)
    assert "Stopped in epoch 1; what was learned until then is kept." in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is before
