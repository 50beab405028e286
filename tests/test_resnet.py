"""The ResNet with fastai's own habits; how well it learns is shown by notebook 06."""
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from fastai.learner import load_learner

from mnist_scratch.data import MNIST, Digits
from mnist_scratch.resnet import ResNet, resnet_learner
from mnist_scratch.training import evaluate

IMAGES, LABELS = torch.rand(44, 28, 28, generator=torch.Generator().manual_seed(0))/2, torch.arange(44) % 10
NOISE = MNIST(*(Digits(IMAGES[part], LABELS[part]) for part in torch.arange(44).split([23, 11, 10])), name="noise")

def weights(learner): return torch.cat([one.detach().flatten() for one in learner.model.parameters()])
def seen(loader): return torch.cat([images[:, 0, 0, 0] for images, _ in loader])

def trained(epochs=1, at_step=lambda step: None, **settings):
    "A learner, the weights it began with, and the number of steps that it made."
    learner, steps = resnet_learner(NOISE, batch_size=10, **settings), []
    before, inner = weights(learner), learner.loss_func
    def loss(*given, **options):
        if learner.training:
            steps.append(1), at_step(len(steps))
        return inner(*given, **options)
    learner.loss_func = loss
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(epochs, 0.01)
    return learner, before, len(steps)

def test_loaders_hold_every_image_once_with_its_label_in_a_new_order_each_epoch():
    learner, default = resnet_learner(NOISE, batch_size=10), resnet_learner(NOISE)
    batches, second = list(learner.dls.train), seen(learner.dls.train)
    assert [tuple(images.shape) for images, _ in batches] == [(10, 1, 28, 28), (10, 1, 28, 28), (3, 1, 28, 28)]
    for pile, loader in ((NOISE.train, batches), (NOISE.valid, list(learner.dls.valid))):
        images, labels = (torch.cat(part) for part in zip(*loader, strict=True))
        found = [(pile.images == image).all((1, 2)).nonzero().item() for image in images[:, 0]]
        assert sorted(found) == list(range(len(pile))) and pile.labels[found].equal(torch.Tensor(labels).long())
    assert not seen(batches).equal(second) and not seen(batches).equal(NOISE.train.images[:, 0, 0])
    assert (default.dls.train.bs, default.dls.train.fake_l.num_workers, default.dls.vocab) == (256, 0, [*range(10)])
    assert default.model[0][4][0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    for seed in (0, 1):
        other = resnet_learner(NOISE, 10, seed=seed)
        assert seen(other.dls.train).equal(seen(batches)) == weights(other).equal(weights(default)) == (seed == 0)

def test_a_seed_decides_a_run_and_the_learner_becomes_a_model():
    (learner, before, n_steps), (again, *_) = trained(seed=4), trained(seed=4)
    assert learner.recorder.values == again.recorder.values and weights(learner).equal(weights(again))
    assert n_steps == 3 and not weights(learner).equal(before)
    model, (loss, accuracy) = ResNet(learner), learner.recorder.values[-1][1:]
    logits = model(NOISE.valid.images).detach()
    assert not model.training and model(NOISE.valid.images).equal(logits)
    assert accuracy == pytest.approx(evaluate(model, NOISE.valid).accuracy)
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, NOISE.valid.labels).item(), rel=1e-4)
    for wrong in (IMAGES[0], IMAGES[:, None], IMAGES.to(torch.uint8), IMAGES.double()):
        with pytest.raises(ValueError, match=r"^ResNet\(\): images should be"), torch.no_grad():
            model(wrong)

def test_the_habits_of_fastai(tmp_path):
    learner = resnet_learner(NOISE, batch_size=10)
    learner.path = tmp_path
    with learner.no_bar():
        probabilities, labels = learner.get_preds()
        assert probabilities.shape == (11, 10) and torch.Tensor(labels).long().equal(NOISE.valid.labels)
        name, index, shares = learner.predict(NOISE.valid.images[3])
        assert str(index.item()) == name and torch.allclose(shares, probabilities[3], atol=1e-5)
        learner.show_results(max_n=4), learner.show_results(ds_idx=0, max_n=2), learner.dls.show_batch(max_n=2)
        learner.export("ours.pkl")
    loaded = load_learner(tmp_path / "ours.pkl")
    with loaded.no_bar():
        assert torch.allclose(loaded.predict(NOISE.valid.images[3])[2], shares, atol=1e-5)
    assert len(loaded.dls.train_ds) == 0, "the images stay at home"

def test_interrupts_end_the_training_and_keep_what_was_learned(capsys, request):
    usual = signal.default_int_handler  # which a program in the background does not have
    request.addfinalizer(partial(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, usual)))
    def interrupt(step):
        assert signal.getsignal(signal.SIGINT) is not usual
        if step == 4:
            signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is usual, "the second is not swallowed"
    learner, before, n_steps = trained(3, interrupt)
    assert n_steps == 4 and not weights(learner).equal(before) and signal.getsignal(signal.SIGINT) is usual
    assert "Stopped in epoch 2; what was learned until then is kept" in capsys.readouterr().out
    with pytest.raises(ZeroDivisionError):
        trained(at_step=lambda step: step/0)
    with pytest.raises(KeyboardInterrupt):
        for _ in range(2):  # at most one is swallowed after an error
            signal.getsignal(signal.SIGINT)(signal.SIGINT, None)
    assert signal.getsignal(signal.SIGINT) is usual
    with ThreadPoolExecutor(1) as pool:  # where Python takes no signals
        assert pool.submit(trained).result()[2] == 3 and "Stopped" not in capsys.readouterr().out
