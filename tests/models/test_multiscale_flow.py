"""Truths about flows of images: nothing is lost between scales, and what they say of volumes is the Jacobian's word."""

import json

import numpy as np
import pytest

import tinygen
from tinygen.describe import describe, rebuild
from tinygen.errors import InputError
from tinygen.models import MultiscaleFlow
from tinygen.models.multiscale_flow import Logit, Squeeze
from tinygen.random import Generator

SHAPES = [((6, 6, 1), 2), ((4, 4, 2), 2), ((4, 8, 1), 1)]  # of an image, and how many scales


def shaken(shape, scales, dtype=np.float64, strength=0.05):
    flow, rng = MultiscaleFlow(shape, scales, steps=2, width=4, bins=4, rng=Generator(0)), Generator(1)
    for p in flow.parameters():
        p.data = p.numpy() + np.float32(strength) * rng.normal(p.shape)
    return flow.to(dtype=dtype)


@pytest.mark.parametrize("shape, scales", SHAPES)
def test_the_inverse_undoes_the_flow_both_ways(shape, scales):
    flow, rng = shaken(shape, scales), Generator(2)
    x, z = rng.uniform((5, *shape), 0.01, 0.99, np.float64), rng.normal((5, *shape), np.float64)
    np.testing.assert_allclose(flow.inverse(flow(x)[0]).numpy(), x, atol=1e-9)
    np.testing.assert_allclose(flow(flow.inverse(z))[0].numpy(), z, atol=1e-7)


@pytest.mark.parametrize("shape, scales", SHAPES)
def test_the_log_determinant_is_that_of_the_engines_jacobian(shape, scales):
    flow, x, size = shaken(shape, scales), Generator(3).uniform((2, *shape), 0, 1, np.float64), np.prod(shape)
    jacobians = [tinygen.jacobian(lambda row: flow(row[None])[0][0], row).numpy().reshape(size, size) for row in x]
    np.testing.assert_allclose(flow(x)[1].numpy(), np.linalg.slogdet(jacobians).logabsdet, atol=1e-8)


def test_half_of_the_noise_leaves_before_the_second_scale_which_it_says_nothing_about():
    """The second scale sees half of the channels: noise that left at the first does not depend on its weights."""
    flow, x = shaken((6, 6, 1), 2), Generator(4).uniform((3, 6, 6, 1), 0, 1, np.float64)
    before = flow(x)[0].numpy().reshape(3, 36)
    for p in flow.scales[1].parameters():
        p.data = p.numpy() + 0.1
    after = flow(x)[0].numpy().reshape(3, 36)
    np.testing.assert_array_equal(before[:, :18], after[:, :18])
    assert (before[:, 18:] != after[:, 18:]).all()


def test_a_squeeze_puts_each_square_of_pixels_into_one_place():
    x = np.arange(16.0).reshape(1, 4, 4, 1)
    z, log_det = Squeeze().forward(x)
    np.testing.assert_array_equal(z[0, 0, 1], [2, 3, 6, 7])
    assert log_det == 0
    np.testing.assert_array_equal(Squeeze().inverse(z), x)


def test_the_logit_takes_both_ends_of_the_pixels_range():
    x = np.array([[0.0, 1.0, 0.5]])
    z, log_det = Logit(1e-3).forward(x)
    np.testing.assert_allclose(z, [[-np.log(999), np.log(999), 0]], atol=1e-12)
    np.testing.assert_allclose(Logit(1e-3).inverse(z), x, atol=1e-12)
    np.testing.assert_allclose(log_det, 3 * np.log(0.998) - 2 * np.log(0.001 * 0.999) - np.log(0.25))


def test_the_first_batch_sets_every_scale_so_that_its_noise_is_centred():
    x = Generator(5).uniform((200, 6, 6, 1), 0.2, 0.4)
    flow = MultiscaleFlow((6, 6, 1), 2, steps=1, width=4, bins=4, rng=Generator(0))
    flow.initialise(x)
    with tinygen.no_grad():
        z = flow(x)[0].numpy().reshape(200, 36)
    for half in (z[:, :18], z[:, 18:]):
        assert abs(half.mean()) < 0.02 and abs(half.std() - 1) < 0.1


def test_it_is_made_again_from_its_description_and_draws_images():
    flow = MultiscaleFlow((6, 6, 1), 2, steps=1, width=4, bins=4, rng=Generator(0))
    again = rebuild(json.loads(json.dumps(describe(flow))), weights=100_000)
    again.load_state_dict(flow.state_dict())
    x = flow.sample(3, Generator(1))
    assert x.shape == (3, 6, 6, 1) and x.dtype == np.float32
    np.testing.assert_array_equal(x, again.sample(3, Generator(1)))


@pytest.mark.parametrize("shape, scales", [((5, 4, 1), 1), ((4, 4, 1), 0), ((2, 2, 1), 3)])
def test_shapes_that_cannot_be_squeezed_or_split_are_refused(shape, scales):
    with pytest.raises(InputError, match="MultiscaleFlow: "):
        MultiscaleFlow(shape, scales, rng=Generator(0))
