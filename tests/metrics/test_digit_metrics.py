import numpy as np
import pytest

from tinygen.data import LabelledImages, digits
from tinygen.errors import InputError
from tinygen.metrics import DigitMetrics, frechet_distance
from tinygen.metrics.classifier import SHA256
from tinygen.random import Generator

DATA = digits()


@pytest.fixture(scope="module")
def measure():
    return DigitMetrics()


@pytest.fixture(scope="module")
def floor(measure):
    return measure.floor(1000)


def test_real_digits_score_as_real_digits_do(floor):
    assert floor.n == 1000 and floor.fid == pytest.approx(0.99, abs=0.02)
    assert floor.class_kl < 0.005 and np.all(np.abs(floor.classes - 0.1) < 0.01)
    assert floor.density == pytest.approx(1, abs=0.1) and floor.coverage > 0.93
    assert floor.distance_ratio == 1 and floor.copies == pytest.approx(0.01)


def test_the_fid_is_the_frechet_distance_of_the_features(measure, floor):
    assert floor.fid == frechet_distance(measure.held_out, measure.train)


def test_training_digits_are_told_to_be_copies_and_which(measure):
    scores = measure(DATA.train.images[:300])
    assert scores.distance_ratio < 0.01 and scores.copies == 1
    assert np.mean(scores.nearest == np.arange(300)) > 0.99


def test_noise_scores_far_worse_than_mirrored_digits_and_these_than_real_ones(measure):
    n = 300
    noise, floor = measure(Generator(0).uniform((n, 28, 28, 1))), measure.floor(n)
    mirrored = measure(DATA.held_out.images[:n, :, ::-1])
    assert noise.fid > 3 * mirrored.fid and mirrored.fid > 10 * floor.fid
    assert noise.coverage < 0.1 < mirrored.coverage < floor.coverage - 0.3
    assert noise.distance_ratio > mirrored.distance_ratio > 1.3


def test_a_class_that_is_missing_shows_in_the_histogram_and_the_coverage(measure, floor):
    scores = measure(DATA.held_out.images[DATA.held_out.labels != 3])
    assert scores.class_kl == pytest.approx(np.log(10 / 9), abs=0.02)
    assert scores.classes.argmin() == 3 and scores.coverage < floor.coverage - 0.05


def test_labels_say_how_many_images_and_which_weights(measure):
    labelled = measure.floor(100).labelled()
    assert len(labelled) == 6
    assert all(f"(n = 100, classifier {SHA256[:8]})" in label for label in labelled)


def test_the_table_shows_images_beside_as_many_held_out_digits(measure):
    images = DATA.train.images[:50]
    lines = measure.table(images).splitlines()
    scores, floor = measure(images), measure.floor(50)
    assert len(lines) == 7 and "held-out" in lines[0]
    assert lines[1].split()[-2:] == [f"{scores.fid:.4g}", f"{floor.fid:.4g}"]


def test_binarised_digits_are_measured_against_binarised_digits(measure, floor):
    data = digits(binarised=True)
    few = data._replace(train=LabelledImages(data.train.images[:2000], data.train.labels[:2000]))
    assert measure(data.held_out.images).fid > 3 * max(floor.fid, DigitMetrics(few).floor(1000).fid)


@pytest.mark.parametrize("n", [1, 1001])
def test_a_floor_takes_as_many_real_digits_as_there_are(measure, n):
    with pytest.raises(InputError, match=f"n = {n} would take"):
        measure.floor(n)
