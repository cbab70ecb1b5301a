"""How good are generated digits? FID, classes, density, coverage and memorisation, all on features of the classifier.

    measure = DigitMetrics()
    print(measure.table(images))            # or measure(images) and measure.floor(len(images)), as numbers

The floor is what held-out digits, which are as real as can be, score in the place of the images. At n = 1000, all of
them, it is FID 0.99, density 0.96, coverage 0.97. They are as many of each class, which images drawn at random are not:
the class histogram of those is some 9 / (2 n) nats from the true one, and 1,000 random training digits have FID 1.17.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from tinygen.data import Dataset, digits
from tinygen.errors import InputError
from tinygen.metrics.classifier import CLASSES, WEIGHTS_NAME, digit_classifier
from tinygen.metrics.frechet import frechet_distance
from tinygen.metrics.modes import histogram_kl
from tinygen.metrics.neighbours import density_coverage, memorisation


@dataclass(frozen=True)
class DigitScores:
    """What `DigitMetrics` found about n images.

    fid:            `frechet_distance` of the features from those of all training digits; lower is better
    class_kl:       KL(classes of the images || classes of the training digits), in nats; real: about 9 / (2 n)
    density:        `density_coverage` over n of the training digits, with k = 5
    coverage:
    distance_ratio: `memorisation`: distance from the training digits, over that of held-out ones; real: 1
    copies:         share of images nearer to a training digit than 99 % of the held-out digits; real: .01
    classes:        (10,) share of the images in each class, as the classifier sees them
    nearest:        (n,) index of the training digit nearest to each image
    """

    n: int
    fid: float
    class_kl: float
    density: float
    coverage: float
    distance_ratio: float
    copies: float
    classes: np.ndarray
    nearest: np.ndarray

    def labelled(self) -> dict[str, float]:
        """The numbers by names that say what they depend on: how many images, and the weights of the classifier."""
        protocol = f"(n = {self.n}, classifier {WEIGHTS_NAME})"
        return {
            f"FID {protocol}": self.fid,
            f"class histogram KL {protocol}": self.class_kl,
            f"density {protocol}": self.density,
            f"coverage {protocol}": self.coverage,
            f"distance to training set / held-out's {protocol}": self.distance_ratio,
            f"share of near copies {protocol}": self.copies,
        }


class DigitMetrics:
    """Measures images (n, 28, 28, 1) of intensities in [0, 1] against a set of digits: `DigitMetrics(data)(images)`.

    data: by default `digits()`. For images of zeros and ones give `digits(binarised=True)`.

    The features of the set are computed once, when this is made (2 s). Scores at different n are not comparable.
    """

    def __init__(self, data: Dataset | None = None):
        data = digits() if data is None else data
        self.train, _ = digit_classifier().embed(data.train.images)
        self.held_out, self.held_out_classes = _embedded(data.held_out.images)
        self.weights = np.bincount(data.train.labels, minlength=CLASSES) / len(data.train.labels)

    def __call__(self, images: ArrayLike) -> DigitScores:
        return self._scores(*_embedded(images))

    def floor(self, n: int) -> DigitScores:
        """What n held-out digits score, spread evenly over the held-out set; at most as many as there are."""
        if not 2 <= n <= len(self.held_out):
            raise InputError(
                f"DigitMetrics: the floor at n = {n} would take as many held-out digits, and there are "
                f"{len(self.held_out)}. Draw as many images as that, or fewer."
            )
        chosen = _evenly(n, len(self.held_out))
        return self._scores(self.held_out[chosen], self.held_out_classes[chosen])

    def table(self, images: ArrayLike) -> str:
        """The scores of n images beside those of n held-out digits, a line for each."""
        scores = self(images)
        real = self.floor(scores.n).labelled()
        rows = [(name, f"{value:.4g}", f"{real[name]:.4g}") for name, value in scores.labelled().items()]
        rows = [("", "images", "held-out digits"), *rows]
        wide = [max(map(len, column)) for column in zip(*rows)]
        return "\n".join(f"{a:<{wide[0]}}  {b:>{wide[1]}}  {c:>{wide[2]}}" for a, b, c in rows)

    def _scores(self, features: np.ndarray, classes: np.ndarray) -> DigitScores:
        n = len(features)
        near = memorisation(features, self.train, self.held_out)
        balls = density_coverage(features, self.train[_evenly(min(n, len(self.train)), len(self.train))])
        shares = np.bincount(classes, minlength=CLASSES) / n
        return DigitScores(
            n=n,
            fid=frechet_distance(features, self.train),
            class_kl=histogram_kl(shares, self.weights),
            density=balls.density,
            coverage=balls.coverage,
            distance_ratio=near.ratio,
            copies=near.copies,
            classes=shares,
            nearest=near.index,
        )


def _embedded(images: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, 64) and likeliest classes (n,)."""
    features, probabilities = digit_classifier().embed(images)
    return features, probabilities.argmax(1)


def _evenly(n: int, of: int) -> np.ndarray:
    """n indices at even steps through `of` items."""
    return np.arange(n) * of // n
