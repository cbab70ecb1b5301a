"""Autoregressive models of digits: pixel by pixel, each given those before it, so that the likelihood is exact.

How can a network give the probability of a whole image, and not of one pixel after another?

It need not. Put the pixels in an order; then the probability of the image *is* that of the first pixel, times that of
the second given the first, and so on to the 784th. That is no assumption but the chain rule. What is assumed is how a
pixel depends on those before it, and three models here assume less and less:

- FVSBN: each pixel is a logistic regression on those before it (Neal 1992; Frey, Hinton & Dayan 1996).
- NADE: each pixel has a hidden layer that looks at those before it; what makes this affordable is that a layer differs
  from that of the pixel before by one row of weights (Larochelle & Murray 2011).
- MADE: an autoencoder, in which masks cut every way from a pixel to its own reconstruction, and to those before it.
  Masks are drawn at random, and a model may be averaged over several draws of them, two here. Or each draw has an order
  of its own, and the same network learns them all (Germain et al. 2015).

All figures are nats per digit, exact, on digits that are held out and binarised once. With the 9,000 digits that come
along, pixels to learn from are drawn anew from the grey levels at every step, which is what there is against
overfitting; with `--data full` training pixels are drawn once as well (60,000 of them; the papers hold out 10,000 of
these), which is the protocol of the papers' figures, though with other random numbers.

    python -m demos autoregressive --data full --steps 6500        a quarter of an hour on two cores

The models are in tinygen/models/autoregressive.py; NADE's walk along the pixels is a kernel, kernels/cpu/nade.py.
"""

from collections.abc import Callable

import numpy as np

from demos.runner import Demo, Run
from tinygen import no_grad, ops, optim, plotting
from tinygen.data import Batches, Dataset, binarise, load
from tinygen.models import FVSBN, MADE, NADE
from tinygen.models.autoregressive import Autoregressive
from tinygen.models.rbm import log_odds
from tinygen.training import Training

DEMO = Demo(
    number=4,
    data="digits, binarised",
    minutes=3,
    steps=2500,
    quick_steps=20,
    datasets=("digits", "full"),
)

PIXELS, BATCH = 28 * 28, 100
HIDDEN, MASKS = {"digits": 500, "full": 1000}, 2  # units of MADE, and draws of masks it is averaged over; NADE has 500
PUBLISHED = {"FVSBN": 97.45, "NADE": 88.33, "MADE": 88.40}  # nats, on MNIST with pixels drawn once
BAR = 95.0  # nats, of MADE on MNIST


def main(run: Run) -> None:
    # -- data: images to learn from, as grey levels or as pixels drawn once; pixels held out, drawn once -----------
    drawn_once = load(run.data, binarised=True)
    train = flat(drawn_once.train.images if drawn_once.name == "full" else load(run.data).train.images)
    x, labels = flat(drawn_once.held_out.images), drawn_once.held_out.labels
    x, labels = (x[::20], labels[::20]) if run.quick else (x, labels)

    # -- three models, a fourth that knows two orders, and a fifth that is told the digit -------------------------
    width = 50 if run.quick else HIDDEN[run.data]
    models = {
        "FVSBN": FVSBN(PIXELS, rng=run.rng),
        "NADE": NADE(PIXELS, min(width, 500), rng=run.rng),
        "MADE": MADE(PIXELS, (width,), masks=MASKS, rng=run.rng),
        "MADE of two orders": MADE(PIXELS, (width,), masks=MASKS, orders=True, rng=run.rng),
    }
    trainings = {"MADE": fit(run, models["MADE"], train, 2 * run.steps, "training")}  # its steps cost half of NADE's
    trainings |= {name: fit(run, model, train, run.steps, name) for name, model in models.items() if name != "MADE"}
    told = MADE(PIXELS, (width,), classes=10, rng=run.rng)
    fit(run, told, train, run.steps, "conditional", drawn_once.train.labels)

    # -- what they learned ------------------------------------------------------------------------------------------
    picture = lambda digits: plotting.save(run.path("samples.png"), plotting.images(digits[:100], "Samples"))
    if run.save_samples(lambda n: as_images(models["MADE"].sample(n, run.rng)), picture):
        return
    measure(run, models, told, x, labels, drawn_once)
    if run.draws:
        draw(run, models, told, x, trainings)
        draw_orders(run, models)


def fit(
    run: Run, model: Autoregressive, train: np.ndarray, steps: int, name: str, labels: np.ndarray | None = None
) -> Training:
    """Trains one model, from pixels that are coins of the right brightness; `labels` for one that is told the class."""
    model.b.data = log_odds(binarise(train, run.rng))
    batches = Batches(train, np.zeros(len(train)) if labels is None else labels, size=BATCH, rng=run.rng)
    schedule = optim.cosine(steps, warmup=steps // 20)
    optimiser = optim.Adam(model.parameters(), lr=1e-2 if name == "FVSBN" else 1.5e-3, schedule=schedule)

    def step(i, rng):
        x, y = next(batches)
        loss = model.loss(binarise(x, rng), rng, y if model.classes else None)  # pixels 0 and 1 stay what they are
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return loss

    state = {"model": model, "optimiser": optimiser, "batches": batches}
    return run.train(step, state, steps=steps, name=name, read_every=100)


def flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), PIXELS)


def as_images(x: np.ndarray) -> np.ndarray:
    """(..., 784) to (..., 28, 28, 1)."""
    return x.reshape(*x.shape[:-1], 28, 28, 1)


# -- measuring -----------------------------------------------------------------------------------------------------


def in_batches(f: Callable[..., np.ndarray], *arrays: np.ndarray, size: int = 250) -> np.ndarray:
    """f of a few rows at a time, in float64."""
    with no_grad():
        parts = [f(*[a[i : i + size] for a in arrays]).numpy() for i in range(0, len(arrays[0]), size)]
    return np.concatenate(parts).astype(np.float64)


def measure(run: Run, models: dict, told: MADE, x: np.ndarray, labels: np.ndarray, data: Dataset) -> None:
    full, nats = data.name == "full", {}
    for name, model in models.items():
        nats[name] = -in_batches(model.log_prob, x).mean()
        paper = {"reference": PUBLISHED[name], "reference_name": "published"} if full and name in PUBLISHED else {}
        bar = {"at_most": BAR if full else nats["NADE"]} if name == "MADE" else {}
        bar = {"at_most": nats["FVSBN"]} if name == "NADE" else bar
        run.metric(f"-log p(x), {name}", nats[name], **paper, **bar)

    # told the digit, a model of images classifies by Bayes' rule; averaged over digits, it is a model of images
    each = [in_batches(lambda x_, y=y: told.log_prob(x_, np.full(len(x_), y)), x) for y in range(10)]
    prior = np.log(np.bincount(data.train.labels, minlength=10) / len(data.train.labels))
    joint = np.stack(each, axis=1) + prior
    run.metric("-log p(x|y), MADE told the digit y", -np.mean(np.stack(each, axis=1)[np.arange(len(x)), labels]))
    run.metric("-log p(x), the same, y summed out", -np.logaddexp.reduce(joint, axis=1).mean())
    run.metric("% classified by Bayes' rule", 100 * np.mean(joint.argmax(1) == labels))


# -- drawing -------------------------------------------------------------------------------------------------------


def draw(run: Run, models: dict, told: MADE, x: np.ndarray, trainings: dict[str, Training]) -> None:
    grid = lambda digits, title: plotting.images(as_images(digits), title, columns=6)
    plotting.save(
        run.path("samples.png"),
        grid(x[run.rng.permutation(len(x))[:36]], "Held-out digits"),
        *[grid(models[name].sample(36, run.rng), f"{name}: samples") for name in ("FVSBN", "NADE", "MADE")],
    )
    each = np.repeat(np.arange(10), 12)
    asked = told.sample(len(each), run.rng, each)
    plotting.save(
        run.path("conditional.png"),
        plotting.images(as_images(asked), "MADE, told which digit to draw", 12, [str(digit) for digit in range(10)]),
    )
    upper, half = x[:: len(x) // 8][:8], PIXELS // 2
    lower_half = models["MADE"].sample(8 * 9, run.rng, given=np.repeat(upper, 9, axis=0), start=half).reshape(8, 9, -1)
    begun = np.where(np.arange(PIXELS) < half, upper, 0.35)
    rows = np.concatenate([upper[:, None], begun[:, None], lower_half], axis=1)
    plotting.save(
        run.path("completions.png"),
        plotting.images(as_images(rows.reshape(-1, PIXELS)), "A digit, its upper half, and nine ways to go on", 11),
    )
    shares = np.linspace(0.1, 1, 200)  # what comes before would squeeze the rest
    curves = {name: plotting.running_mean(trainings[name].losses, 200) for name in models}
    curves = {name: values[np.rint(shares * (len(values) - 1)).astype(int)] for name, values in curves.items()}
    plotting.save(
        run.path("learning.png"),
        plotting.curve(curves, "While training", 100 * shares, "% of the steps", "-log p(x), nats"),
        *[where_the_nats_are(model, x, name) for name, model in models.items() if name in PUBLISHED],
        columns=2,
    )


def where_the_nats_are(model: Autoregressive, x: np.ndarray, name: str) -> plotting.Panel:
    """-log p(x_i | x_<i) of each pixel, averaged over x."""
    pixel = lambda x_: ops.binary_cross_entropy_with_logits(model.logits(x_), x_)
    nats = in_batches(pixel, x).mean(0).reshape(28, 28)
    return plotting.heat_map(nats[::-1], (0, 28, 0, 28), f"{name}: nats of each pixel", top=0.6, label="nats")


def draw_orders(run: Run, models: dict, n: int = 16, every: int = 14) -> None:
    """How an image fills: by rows, and in one of the orders at random that the other MADE learned."""
    panels = []
    for name, title in (("MADE", "Row by row"), ("MADE of two orders", "In an order drawn at random")):
        model, x, known = models[name], np.zeros((n, PIXELS), np.float32), np.zeros(PIXELS, bool)
        frames = [np.full((n, PIXELS), 0.35)]
        for place, i in enumerate(model.filling(x, run.rng, k=0)):
            known[i] = True
            if place % every == every - 1:
                frames.append(np.where(known, x, 0.35))
        panels.append(plotting.images(as_images(np.array(frames)), title, columns=4))
    captions = [f"{every * t} of {PIXELS} pixels" for t in range(len(frames))]
    plotting.animate(run.path("orders.gif"), *panels, captions=captions, fps=8)
