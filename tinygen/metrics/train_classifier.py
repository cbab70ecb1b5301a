"""Trains the digit classifier of `tinygen.metrics.classifier`:  python -m tinygen.metrics.train_classifier

9,000 digits are few for a network that has to know handwriting. But a digit that is turned, sheared, stretched or bent
a little is still that digit (Simard, Steinkraus & Platt 2003), so that no image has to be shown the same way twice.
Besides that: dropout, AdamW with a cosine schedule, and the moving average of the weights, rounded to float16.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import numpy as np

from tinygen import ops, optim
from tinygen.data import LabelledImages, digits
from tinygen.errors import TinygenError
from tinygen.files import write_npz
from tinygen.metrics.classifier import FILE, DigitClassifier
from tinygen.random import Generator
from tinygen.runtime import tuned
from tinygen.training import train

BATCH = 64
BUMPS = 5  # along each axis


def train_classifier(data: LabelledImages, steps: int, rng: Generator, progress: bool = True) -> DigitClassifier:
    """A classifier trained on `data` for so many steps of 64 deformed digits each."""
    classifier = DigitClassifier(rng)
    schedule = optim.cosine(steps, warmup=steps // 30)
    optimiser = optim.AdamW(classifier.parameters(), lr=3e-3, weight_decay=0.01, schedule=schedule)
    ema = optim.EMA(classifier, decay=0.998)

    def step(i: int, rng: Generator):
        chosen = rng.integers(len(data.images), (BATCH,))
        logits = classifier(deform(data.images[chosen], rng), rng)
        loss = ops.mean(ops.cross_entropy(logits, data.labels[chosen]))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        ema.update()
        return loss

    state = {"classifier": classifier, "optimiser": optimiser, "ema": ema}
    train(step, steps, rng, state=state, progress=progress, name="digit classifier")
    ema.copy_to(classifier.parameters())
    return classifier


def deform(
    images: np.ndarray, rng: Generator, linear: float = 0.15, shift: float = 2.0, bend: float = 0.06
) -> np.ndarray:
    """Each of the images (n, H, W, 1) turned, sheared, stretched, shifted and bent in a way of its own.

    A pixel at p in [-1, 1]^2 takes the intensity (interpolated between the nearest four, 0 outside) of the image at

        A p + b + sum_j c_j exp(-||p - m_j||^2 / 2 s^2)

    linear: A is the identity plus uniform numbers from [-linear, linear]
    shift:  b is uniform on [-shift, shift]^2, in pixels
    bend:   c_j ~ N(0, bend^2 I), one for each of 5 x 5 smooth bumps (s = 0.4) that together cover the image
    """
    from scipy.ndimage import map_coordinates

    n, height, width, _ = images.shape
    half = np.float32([(height - 1) / 2, (width - 1) / 2])
    p = (np.indices((height, width), np.float32).reshape(2, -1).T - half) / half  # (H W, 2)
    a = np.eye(2, dtype=np.float32) + rng.uniform((n, 2, 2), -linear, linear)
    b = rng.uniform((n, 1, 2), -shift, shift) / half
    c = np.float32(bend) * rng.normal((n, BUMPS**2, 2))
    seen = half * (p @ a + b + _bumps(p) @ c) + half
    which = np.broadcast_to(np.arange(n)[:, None], seen.shape[:2])
    taken = map_coordinates(images[..., 0], [which, seen[..., 0], seen[..., 1]], order=1, prefilter=False)
    return taken.reshape(images.shape)


def _bumps(p: np.ndarray, width: float = 0.4) -> np.ndarray:
    """The values at points p (m, 2) of Gaussian bumps whose centres form a grid over [-1, 1]^2: (m, BUMPS^2)."""
    line = np.linspace(-1, 1, BUMPS, dtype=np.float32)
    centres = np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    squared = np.square(p[:, None] - centres).sum(-1)
    return np.exp(-squared / np.float32(2 * width**2))


def save(classifier: DigitClassifier, path: Path) -> str:
    """Rounds the weights to float16, in the classifier too, and writes them; returns the sha256 of the file."""
    rounded = {name: array.astype(np.float16) for name, array in classifier.state_dict().items()}
    classifier.load_state_dict(rounded)
    write_npz(path, rounded)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def accuracy(classifier: DigitClassifier, data: LabelledImages) -> float:
    """The share of digits whose likeliest class is the right one."""
    _, probabilities = classifier.embed(data.images)
    return float(np.mean(probabilities.argmax(1) == data.labels))


def main(arguments: list[str] | None = None) -> int:
    program = "python -m tinygen.metrics.train_classifier"
    parser = argparse.ArgumentParser(prog=program, description="Train the digit classifier that the metrics use.")
    parser.add_argument("--steps", type=int, default=12_000, help="training steps of 64 digits (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--out", type=Path, default=Path("out") / FILE, help="where to write the weights (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        data = digits()
        with tuned(blas_threads=1):
            classifier = train_classifier(data.train, options.steps, Generator(options.seed))
        sha256 = save(classifier, options.out)
    except TinygenError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.out}, sha256 {sha256}")
    print(f"accuracy: {accuracy(classifier, data.held_out):.2%} of the {len(data.held_out.labels):,} held-out digits")
    print("To ship these weights, copy the file into tinygen/metrics/ and write its sha256 into classifier.py.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
