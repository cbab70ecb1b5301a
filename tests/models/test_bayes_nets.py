"""Truths about naive Bayes, Chow-Liu trees and mixtures of Bernoullis, where all images can be counted."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygen.data import binarise
from tinygen.describe import describe, rebuild
from tinygen.errors import InputError, ShapeError
from tinygen.models import BernoulliMixture, ChowLiuTree, ClassConditional, NaiveBayes, ProductOfBernoullis
from tinygen.models.chow_liu import frequencies, maximum_spanning_tree, mutual_information
from tinygen.random import Generator

ALL = (np.arange(2**12)[:, None] >> np.arange(12) & 1).astype(np.float32)  # every image of 12 pixels


def images(n=60, seed=0, pixels=12):
    """Images whose pixels hang together: noise added to one of three patterns; and which pattern it was."""
    rng = Generator(seed)
    labels = rng.integers(3, n)
    patterns = rng.uniform((3, pixels)) < 0.5
    return np.where(rng.uniform((n, pixels)) < 0.2, ~patterns[labels], patterns[labels]).astype(np.float32), labels


def fitted(kind, seed=0):
    x, y = images(seed=seed)
    return {
        "independent pixels": lambda: ProductOfBernoullis(12).fit(x),
        "naive Bayes": lambda: NaiveBayes(3, 12).fit(x, y),
        "tree": lambda: ChowLiuTree(12).fit(x),
        "trees": lambda: ClassConditional([ChowLiuTree(12) for _ in range(3)]).fit(x, y),
        "mixture": lambda: BernoulliMixture(4, 12).fit(x, Generator(seed)),
    }[kind]()


KINDS = ("independent pixels", "naive Bayes", "tree", "trees", "mixture")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_probabilities_sum_to_one_over_all_images_of_twelve_pixels(kind, seed):
    assert np.exp(fitted(kind, seed).log_prob(ALL)).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_come_as_often_as_their_probability_says(kind):
    model, n = fitted(kind), 40_000
    drawn = model.sample(n, Generator(1))
    assert drawn.shape == (n, 12) and drawn.dtype == np.float32
    p, codes = np.exp(model.log_prob(ALL)), drawn.astype(int) @ (1 << np.arange(12))
    likely = np.flatnonzero(n * p > 10)
    counts = np.bincount(codes, minlength=2**12)[likely]
    squared = np.sum((counts - n * p[likely]) ** 2 / (n * p[likely]))
    assert squared < len(likely) + 4 * np.sqrt(2 * len(likely))


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_made_again_from_its_description_and_its_weights(kind):
    model = fitted(kind)
    again = rebuild(json.loads(json.dumps(describe(model))), weights=1000)
    again.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(model.log_prob(ALL), again.log_prob(ALL))


@pytest.mark.parametrize("kind", KINDS)
def test_what_knows_more_of_the_pixels_describes_them_better(kind):
    x, _ = images()
    assert fitted(kind).log_prob(x).mean() >= fitted("independent pixels").log_prob(x).mean()


# -- naive Bayes -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 1000))
def test_the_posterior_is_that_of_bayes_rule_and_linear_in_the_pixels(seed):
    model = fitted("naive Bayes", seed % 5)
    joint = model.log_joint(ALL)
    np.testing.assert_allclose(np.exp(joint - model.log_prob(ALL)[:, None]).sum(axis=1), 1, rtol=1e-5)
    odds = joint[:, 0] - joint[:, 1]
    flipped = Generator(seed).integers(12)
    effect = (odds - odds[np.arange(2**12) ^ (1 << flipped)]) * (2 * ALL[:, flipped] - 1)
    np.testing.assert_allclose(effect, effect[0], atol=1e-4)  # a pixel counts the same whatever the others are


def test_smoothing_is_so_many_imaginary_images_of_noise():
    x = np.array([[1, 1], [1, 0]], np.float32)
    np.testing.assert_allclose(ProductOfBernoullis(2, smoothing=2.0).fit(x).p.data, [0.75, 0.5])
    noise = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    smoothed, pair = frequencies(x, smoothing=4.0)
    counted, pair_counted = frequencies(np.concatenate([x, noise]), smoothing=0.0)
    np.testing.assert_allclose(smoothed, counted)
    np.testing.assert_allclose(pair[0, 1], pair_counted[0, 1])


def test_a_class_without_examples_is_unlikely_but_not_impossible():
    x, y = images()
    model = NaiveBayes(4, 12).fit(x, y)
    assert 0 < model.prior.data[3] < 0.02 and np.all(np.isfinite(model.log_prob(x)))


def test_samples_are_of_the_classes_that_are_asked_for():
    model, labels = fitted("naive Bayes"), np.array([2, 0, 2, 1])
    model.densities[0].p.data, model.densities[2].p.data = np.full(12, 1e-9), np.full(12, 1 - 1e-9)
    drawn = model.sample(4, Generator(0), labels)
    assert drawn[0].all() and drawn[2].all() and not drawn[1].any()
    assert model.sample(0, Generator(0)).shape == (0, 12)


# -- Chow-Liu ----------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.integers(2, 10), st.integers(0, 10_000))
def test_a_known_tree_is_found_again(pixels, seed):
    rng = Generator(seed)
    parent = np.array([-1, *(int(rng.integers(i)) for i in range(1, pixels))])
    x = np.zeros((6000, pixels), np.float32)
    x[:, 0] = rng.uniform(6000) < 0.5
    for i in range(1, pixels):
        x[:, i] = np.abs(x[:, parent[i]] - (rng.uniform(6000) < 0.15))  # a copy, wrong now and then
    found = ChowLiuTree(pixels).fit(x).parent.data
    edges = lambda parent: {frozenset((i, int(p))) for i, p in enumerate(parent) if p >= 0}
    assert edges(found) == edges(parent)


def test_the_tree_has_the_pairs_of_the_data_along_its_edges():
    x, _ = images(200)
    model = ChowLiuTree(12, smoothing=1e-9).fit(x)
    p = np.exp(model.log_prob(ALL))
    for i, j in enumerate(model.parent.data):
        if j >= 0:
            both, of_model = np.mean(x[:, i] * x[:, j]), np.sum(p * ALL[:, i] * ALL[:, j])
            assert of_model == pytest.approx(both, abs=1e-5)


def test_the_divergence_is_entropies_less_the_information_along_the_edges():
    x, _ = images(300)
    model = ChowLiuTree(12, smoothing=1e-9).fit(x)
    p = x.mean(axis=0, dtype=np.float64)
    entropies = -np.sum(p * np.log(p) + (1 - p) * np.log1p(-p))
    assert -model.log_prob(x).mean() == pytest.approx(entropies - model.information.data.sum(), rel=1e-6)


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(0, 10_000))
def test_no_spanning_tree_weighs_more(nodes, seed):
    from scipy.sparse.csgraph import minimum_spanning_tree

    w = Generator(seed).uniform((nodes, nodes), dtype=np.float64) + 0.1
    w = (w + w.T) / 2
    parent, order = maximum_spanning_tree(w)
    joined = [(i, p) for i, p in enumerate(parent) if p >= 0]
    assert len(joined) == nodes - 1 and sorted(order) == list(range(nodes))
    place = np.argsort(order)
    assert all(place[p] < place[i] for i, p in joined)
    assert sum(w[i, p] for i, p in joined) == pytest.approx(-minimum_spanning_tree(-np.triu(w, 1)).sum())


def test_mutual_information_is_zero_for_independent_pixels_and_the_entropy_for_equal_ones():
    x = np.array([[0, 0, 0], [0, 0, 1], [1, 1, 0], [1, 1, 1]], np.float32)
    information = mutual_information(*frequencies(x, 1e-12))
    assert information[0, 1] == pytest.approx(np.log(2)) and information[0, 2] == pytest.approx(0, abs=1e-9)


def test_intensities_count_as_the_mean_over_their_binarisations():
    grey = Generator(0).uniform((30, 12))
    many = np.concatenate([binarise(grey, Generator(seed)) for seed in range(400)])
    for of_grey, of_bits in zip(frequencies(grey, 0.0), frequencies(many, 0.0)):
        off_diagonal = ~np.eye(12, dtype=bool) if of_grey.ndim == 2 else slice(None)
        np.testing.assert_allclose(of_grey[off_diagonal], of_bits[off_diagonal], atol=0.02)


# -- the mixture -------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.integers(1, 8), st.integers(8, 60), st.integers(0, 10_000), st.sampled_from([1e-3, 0.1, 3.0]), st.booleans())
def test_no_step_of_em_lowers_the_objective(components, n, seed, smoothing, grey):
    x = images(n, seed)[0].astype(np.float64)
    x = 0.8 * x + 0.1 if grey else x
    model = BernoulliMixture(components, 12, smoothing)
    model.initialise(x, Generator(seed))
    objective = [model.em_step(x) for _ in range(30)]
    assert np.all(np.isfinite(objective)) and np.diff(objective).min() > -1e-9


def test_the_objective_is_the_likelihood_where_nothing_is_smoothed():
    x, _ = images()
    model = BernoulliMixture(3, 12, smoothing=1e-12)
    model.initialise(x, Generator(0))
    expected = model.log_prob(x).mean()
    assert model.em_step(x) == pytest.approx(expected, rel=1e-5)


def test_one_component_is_a_product_of_bernoullis():
    x, _ = images()
    mixture = BernoulliMixture(1, 12, smoothing=0.3).fit(x, Generator(0), steps=2)
    np.testing.assert_allclose(mixture.means.data[0], ProductOfBernoullis(12, 0.3).fit(x).p.data, rtol=1e-6)


def test_templates_that_made_the_images_are_found_again():
    rng = Generator(1)
    patterns = np.array([[1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0], [0] * 8 + [1] * 4, [0, 0, 0, 0, 1, 1, 1, 1] + [0] * 4])
    labels = rng.integers(3, 600)
    x = np.where(rng.uniform((600, 12)) < 0.1, 1 - patterns[labels], patterns[labels]).astype(np.float32)
    model = BernoulliMixture(3, 12).fit(x, rng, steps=40)
    found = model.means.data[np.argmin(np.abs(patterns[:, None] - model.means.data).sum(-1), axis=1)]
    assert np.abs(found - np.where(patterns, 0.9, 0.1)).max() < 0.06


def test_a_component_without_images_leaves_no_nan():
    x, _ = images()
    model = BernoulliMixture(3, 12).fit(x, Generator(0))
    model.weights.data = np.array([0.5, 0.5, 0.0])
    for _ in range(3):
        assert np.isfinite(model.em_step(x))
    assert model.weights.data[2] == 0 and np.all(model.means.data[2] == 0.5)
    assert np.all(np.isfinite(model.log_prob(ALL)))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: ProductOfBernoullis(12).fit(np.zeros((3, 5))), ShapeError, r"\(N, 12\), not \(3, 5\)"),
        (lambda: ChowLiuTree(12).fit(np.full((3, 12), 2.0)), InputError, "between 0 and 1"),
        (lambda: ChowLiuTree(12).fit(np.full((3, 12), np.nan)), InputError, "NaN"),
        (lambda: ChowLiuTree(12).log_prob(np.full((3, 12), 0.5)), InputError, "binarise them"),
        (lambda: BernoulliMixture(0, 12), InputError, "components must be at least 1"),
        (lambda: BernoulliMixture(4, 12).fit(ALL[:3], Generator(0)), InputError, "start at as many images, not 3"),
        (lambda: ChowLiuTree(0), InputError, "dimensions must be at least 1"),
        (lambda: ProductOfBernoullis(3, smoothing=0.0), InputError, "smoothing above 0"),
        (lambda: NaiveBayes(3, 12).fit(ALL[:3], [0, 1, 3]), InputError, "labels from 0 to 2"),
        (lambda: NaiveBayes(3, 12).sample(2, Generator(0), [0]), InputError, "2 samples need as many labels"),
        (lambda: ClassConditional([]), InputError, "one at least"),
    ],
)
def test_what_makes_no_sense_is_explained(call, error, message):
    with pytest.raises(error, match=message):
        call()
