"""Two networks that draw an image pixel by pixel: convolutions of what is near, attention to all that was before.

A masked network (the demo before this one) knows a pixel by its number alone: what it has learned of a stroke here it
has to learn again there. What network knows that an image is an image?

- The gated PixelCNN looks at every pixel through the same windows. Two stacks of them, one of the rows above and one of
  the own row, together see all that came before; gates let features multiply (van den Oord et al. 2016b).
- A transformer sees all pixels before at once and learns which of them matter, from nothing: that two pixels are
  neighbours it must find out (Parmar et al. 2018; Chen et al. 2020).

Both are given the class of the digit, and both are exact: nats per digit of 14 x 14 pixels, held out and binarised
once, beside those of a MADE of the previous demo on the same pixels. As a network that was told the class says how
likely x is under each, it also is a classifier, by Bayes' rule, and a model that need not be told.

Training sees all pixels in one call; drawing takes one call for each of 196. What was computed for the pixels before is
kept: rows and columns of features in the one, keys and values in the other.

Papers: van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves & Kavukcuoglu 2016b, "Conditional image generation with
PixelCNN decoders"; Parmar et al. 2018, "Image transformer"; Chen et al. 2020, "Generative pretraining from pixels". The
models are in tinygen/models/pixelcnn.py and tinygen/models/pixel_transformer.py.
"""

import time

import numpy as np

from demos.runner import Demo, Run
from tinygen import no_grad, ops, optim, plotting
from tinygen.data import Batches, binarise, load
from tinygen.models import MADE, PixelCNN, PixelTransformer
from tinygen.nn import Module
from tinygen.training import Training

DEMO = Demo(
    number=5,
    data="digits, 14 x 14, binarised",
    minutes=9,
    steps=2400,
    quick_steps=10,
    datasets=("digits", "full"),
)

SIDE = 14
PIXELS = SIDE * SIDE
UNKNOWN = 0.35  # the grey of a pixel that is not drawn yet


def main(run: Run) -> None:
    # -- data: digits of half the size as grey levels to learn from; pixels held out, drawn once -------------------
    train, held_out = load(run.data, size=SIDE).train, load(run.data, size=SIDE, binarised=True).held_out
    every = 50 if run.quick else 1
    x, labels = held_out.images[::every], held_out.labels[::every]

    # -- three models, all told the class ------------------------------------------------------------------------------
    channels, layers = (8, 2) if run.quick else (32, 6)
    models = {
        "PixelCNN": PixelCNN(channels, layers, classes=10, rng=run.rng),
        "transformer": PixelTransformer((SIDE, SIDE, 1), 2 * channels, 4, layers - 1, 10, dropout=0.1, rng=run.rng),
        "MADE": FlatMADE(MADE(PIXELS, (500,), classes=10, rng=run.rng)),
    }
    trainings = {
        "PixelCNN": fit(run, models["PixelCNN"], train, "training", batch=64),
        "transformer": fit(run, models["transformer"], train, "transformer", batch=32),
        "MADE": fit(run, models["MADE"], train, "MADE", batch=100, lr=2e-3),
    }
    for model in models.values():
        model.eval()

    # -- what they learned ---------------------------------------------------------------------------------------------
    draw_digits = lambda n: models["PixelCNN"].sample(blank(n), run.rng, np.arange(n) % 10)
    picture = lambda drawn: plotting.save(run.path("samples.png"), plotting.images(drawn[:100], "Samples", columns=10))
    if run.save_samples(draw_digits, picture):
        return
    measure(run, models, x, labels)
    if run.draws:
        draw(run, models, x, labels, trainings)
        draw_filling(run, models["PixelCNN"])


class FlatMADE(Module):
    """A MADE of images."""

    def __init__(self, made: MADE):
        self.made = made

    def logits(self, x, labels):
        return self.made.logits(x.reshape(len(x), PIXELS), labels).reshape(x.shape)

    def log_prob(self, x, labels):
        return self.made.log_prob(x.reshape(len(x), PIXELS), labels)

    def loss(self, x, labels):
        return -ops.mean(self.log_prob(x, labels))


def fit(run: Run, model: Module, train, name: str, batch: int, lr: float = 3e-3) -> Training:
    batches = Batches(train.images, train.labels, size=batch, rng=run.rng)
    optimiser = optim.Adam(model.parameters(), lr=lr, schedule=optim.cosine(run.steps, warmup=run.steps // 20))

    def step(i, rng):
        x, y = next(batches)
        loss = model.loss(binarise(x, rng), y)  # pixels are drawn anew at every step: 9,000 digits overfit soon
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return loss

    state = {"model": model, "optimiser": optimiser, "batches": batches}
    return run.train(step, state, name=name, read_every=20)


def blank(n: int) -> np.ndarray:
    return np.zeros((n, SIDE, SIDE, 1), np.float32)


# -- measuring -----------------------------------------------------------------------------------------------------


def log_prob(model: Module, x: np.ndarray, labels: np.ndarray, size: int = 100) -> np.ndarray:
    """log p(x|y) in nats, a few images at a time."""
    with no_grad():
        parts = [model.log_prob(x[i : i + size], labels[i : i + size]).numpy() for i in range(0, len(x), size)]
    return np.concatenate(parts).astype(np.float64)


def measure(run: Run, models: dict[str, Module], x: np.ndarray, labels: np.ndarray) -> None:
    made = -log_prob(models["MADE"], x, labels).mean()
    run.metric("-log p(x|y), MADE", made)
    for name in ("PixelCNN", "transformer"):
        nats = -log_prob(models[name], x, labels).mean()
        run.metric(f"-log p(x|y), {name}", nats, reference=made, reference_name="MADE", at_most=made)
    classes = run.progress(range(10), "every digit as every class", unit="class")
    joint = np.stack([log_prob(models["PixelCNN"], x, np.full(len(x), y)) for y in classes], axis=1) - np.log(10)
    run.metric("-log p(x), PixelCNN, y summed out", -np.logaddexp.reduce(joint, axis=1).mean())
    run.metric("% classified by Bayes' rule", 100 * np.mean(joint.argmax(1) == labels))
    for name in ("PixelCNN", "transformer"):
        run.metric(f"ms to draw a digit of 100, {name}", 10 * seconds_to_draw(run, models[name]))


def seconds_to_draw(run: Run, model: Module) -> float:
    """For 100 digits at once."""
    start = time.perf_counter()
    model.sample(blank(100), run.rng, np.arange(100) % 10)
    return time.perf_counter() - start


# -- drawing ---------------------------------------------------------------------------------------------------------


def draw(run: Run, models: dict, x: np.ndarray, labels: np.ndarray, trainings: dict[str, Training]) -> None:
    asked = np.repeat(np.arange(10), 10)
    held = np.concatenate([np.resize(np.flatnonzero(labels == digit), 10) for digit in range(10)])
    names = [str(digit) for digit in range(10)]
    mosaics = [plotting.images(x[held], "Held-out digits", 10, names)]
    for name in ("PixelCNN", "transformer"):
        drawn = models[name].sample(blank(100), run.rng, asked)
        mosaics.append(plotting.images(drawn, f"{name}, told the class", 10, names))
    plotting.save(run.path("samples.png"), *mosaics)

    upper = x[held[::10]]
    known = np.arange(PIXELS).reshape(SIDE, SIDE, 1) < PIXELS // 2
    rows = [upper, np.where(known, upper, UNKNOWN)]
    for _ in range(8):
        rows.append(models["PixelCNN"].sample(upper, run.rng, np.arange(10), start=PIXELS // 2))
    rows = np.stack(rows, axis=1).reshape(-1, SIDE, SIDE, 1)
    plotting.save(run.path("completions.png"), plotting.images(rows, "Its upper half, and eight ways to go on", 10))
    curves = {name: plotting.running_mean(trainings[name].losses, 50) for name in trainings}
    plotting.save(
        run.path("learning.png"),
        plotting.curve(curves, "While training", ylabel="-log p(x|y), nats", log="y"),
        *[sight(models[name], x[:50], labels[:50], name) for name in ("PixelCNN", "transformer")],
    )


def sight(model: Module, x: np.ndarray, labels: np.ndarray, name: str, row: int = 8, column: int = 7) -> plotting.Panel:
    """How much the log-odds of one pixel change when another is turned over, on average over digits."""
    i = SIDE * row + column
    turned = np.repeat(x[:, None], i, axis=1)
    turned.reshape(len(x), i, PIXELS)[:, np.arange(i), np.arange(i)] = 1 - x.reshape(len(x), PIXELS)[:, :i]
    with no_grad():
        at = lambda images, y: model.logits(images, y).numpy()[:, row, column, 0]
        as_it_is = at(x, labels)
        changes = [np.abs(at(turned[:, j], labels) - as_it_is).mean() for j in range(i)]
    seen = np.pad(np.array(changes), (0, PIXELS - i)).reshape(SIDE, SIDE)
    title = f"{name}: what tells\nrow {row + 1}, column {column + 1} most"
    return plotting.heat_map(seen[::-1], (0, SIDE, 0, SIDE), title, label="change of log-odds")


def draw_filling(run: Run, model: PixelCNN, n: int = 20, every: int = 4) -> None:
    """The order in which it fills an image."""
    drawn = model.sample(blank(n), run.rng, np.arange(n) % 10)
    place = np.arange(PIXELS).reshape(SIDE, SIDE, 1)
    frames = np.stack([np.where(place < t, drawn, UNKNOWN) for t in range(0, PIXELS + 1, every)])
    captions = [f"{t} of {PIXELS} pixels" for t in range(0, PIXELS + 1, every)]
    panel = plotting.images(frames, "Pixel by pixel, told the class", columns=10)
    plotting.animate(run.path("filling.gif"), panel, captions=captions, fps=12)
