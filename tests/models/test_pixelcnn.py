"""Truths about models that draw an image pixel by pixel, alike for convolutions and for attention."""

import itertools

import numpy as np
import pytest

import tinygen
from tinygen import no_grad, ops
from tinygen.errors import InputError
from tinygen.models import PixelCNN, PixelTransformer
from tinygen.random import Generator

SHAPE = (3, 4, 1)
MODELS = {
    "PixelCNN": lambda classes=0: PixelCNN(channels=4, layers=3, classes=classes, rng=Generator(0)),
    "PixelTransformer": lambda classes=0: PixelTransformer(SHAPE, 8, 2, 2, classes, rng=Generator(0)),
}
ALL = np.array(list(itertools.product([0, 1], repeat=12)), np.float32).reshape(-1, *SHAPE)


@pytest.fixture(params=MODELS)
def make(request):
    """Makes a model whose every weight is away from zero, for it begins as a fair coin for each pixel."""

    def make(classes=0):
        model, rng = MODELS[request.param](classes), Generator(1)
        for p in model.parameters():
            p.data[...] += 0.4 * rng.normal(p.shape)
        return model

    return make


def test_the_probabilities_of_all_images_of_12_pixels_sum_to_one(make):
    with no_grad():
        for labels, model in ((None, make()), (np.full(len(ALL), 2), make(classes=3))):
            log_p = model.log_prob(ALL, labels).numpy().astype(np.float64)
            assert abs(np.exp(log_p).sum() - 1) < 1e-5 and log_p.std() > 0.2


def test_each_pixel_is_told_of_all_pixels_before_it_and_of_none_after(make):
    model, x = make(), np.asarray(Generator(2).uniform((1, *SHAPE)) < 0.5, np.float32)
    with no_grad():
        logits = model.logits(x).numpy().reshape(-1)
        heard = np.zeros((12, 12), bool)
        for i in range(12):
            y = x.copy()
            y.reshape(-1)[i] = 1 - y.reshape(-1)[i]
            heard[:, i] = model.logits(y).numpy().reshape(-1) != logits
    np.testing.assert_array_equal(heard, np.tril(np.ones((12, 12), bool), -1))


def test_the_stacks_of_a_pixelcnn_leave_no_blind_spot():
    model = PixelCNN(channels=6, layers=5, rng=Generator(0))
    model.last.weight.data[...] = 1
    x = tinygen.tensor(Generator(1).uniform((1, 9, 9, 1)), requires_grad=True)
    model.logits(x)[0, 5, 4, 0].backward()
    seen = x.grad[0, :, :, 0] != 0
    assert seen[:5].all() and seen[5, :4].all() and not seen[5, 4:].any() and not seen[6:].any()


def test_drawing_from_the_cache_asks_each_pixel_what_the_whole_network_says(make):
    """With the same uniform numbers, pixels drawn one by one from the whole network are the same pixels."""
    for labels, model in ((None, make()), (np.array([0, 2, 1, 1]), make(classes=3))):
        x = model.sample(np.zeros((4, *SHAPE)), Generator(3), labels)
        rng, y = Generator(3), np.zeros((4, *SHAPE), np.float32)
        with no_grad():
            for i in range(12):
                p = ops.sigmoid(model.logits(y, labels).numpy()).reshape(4, 12)[:, i]
                y.reshape(4, 12)[:, i] = rng.uniform((4, 1)).reshape(4) < p
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("start", [0, 1, 4, 7, 12])
def test_pixels_before_the_start_are_kept_and_the_rest_follow_their_distribution(make, start):
    model, n = make(), 4000
    begun = np.asarray(Generator(4).uniform(SHAPE) < 0.5, np.float32)
    x = model.sample(np.broadcast_to(begun, (n, *SHAPE)), Generator(5), start=start).reshape(n, 12)
    np.testing.assert_array_equal(x[:, :start], np.broadcast_to(begun.reshape(-1)[:start], (n, start)))
    with no_grad():
        p = np.exp(model.log_prob(ALL).numpy().astype(np.float64))
    p *= (ALL.reshape(-1, 12)[:, :start] == begun.reshape(-1)[:start]).all(1)
    expected = (p / p.sum()) @ ALL.reshape(-1, 12)
    np.testing.assert_array_less(np.abs(x.mean(0) - expected), 5 * np.sqrt(expected * np.abs(1 - expected) / n) + 1e-6)


def test_labels_are_given_if_and_only_if_there_are_classes(make):
    with pytest.raises(InputError, match="made for 0 classes"):
        make().log_prob(ALL[:1], np.array([0]))
    with pytest.raises(InputError, match="made for 3 classes, but no labels"):
        make(classes=3).log_prob(ALL[:1])
