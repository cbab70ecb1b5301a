"""Generative against discriminative, on digits: naive Bayes, Chow-Liu trees, and a mixture of Bernoullis.

How much does a model of digits need to know? Should it learn what digits look like, or how to tell them apart?

Four models of black and white images, none of which needs a gradient, by what they know of how pixels hang together:

- nothing: every pixel is a coin of its own;
- through the class: naive Bayes, in which the pixels of a class are independent;
- through a template: a mixture of a hundred such models, found by EM, in which the classes are not given but invented;
- through each other: the tree of Chow & Liu (1968), in which every pixel depends on one neighbour; one tree for all
  digits, or one for each class.

Why is naive Bayes so far behind? Digits of one class differ by slant, width and position, and those move many pixels at
once. Given the class alone, naive Bayes has to take every one of these pixels for an accident: it pays for the slant of
a seven once for each pixel that the slant moves, some hundred times. A tree pays once, at the first pixel of a stroke,
and then follows the stroke; a template has paid with its choice. For the same reason naive Bayes is too sure of
itself: a hundred pixels that say the same thing count for it as a hundred witnesses.

By Bayes' rule each class-conditional model is a classifier too. Ng & Jordan (2001) set naive Bayes against logistic
regression, which has the same form but is trained to tell the classes apart, and found that the generative one comes
sooner to what it can do, and the discriminative one in the end to more. The last picture repeats that on digits: a
little ahead below 200 examples, far behind above. The trees, generative too but less naive, keep pace from there on.

Figures are nats per digit on held-out digits binarised once. The models learn from intensities: an intensity of 0.3 is
a pixel that is black in three binarisations out of ten, and counts are taken over all of them at once. How much to
smooth the counts is chosen on a ninth of the digits to learn from, never on those held out.

`--data full` learns from the 60,000 digits of MNIST and fits 500 templates, in minutes of one core. A mixture of that
size is published with 137.64 nats (Salakhutdinov & Murray 2008); this one reaches 124.4, well begun and smoothed.

Papers: Chow & Liu 1968, "Approximating discrete probability distributions with dependence trees"; Ng & Jordan 2001, "On
discriminative vs. generative classifiers". The models are in tinygen/models/naive_bayes.py, chow_liu.py and
bernoulli_mixture.py.
"""

from collections.abc import Callable

import numpy as np

from demos.runner import Demo, Run
from tinygen import nn, no_grad, ops, optim, plotting
from tinygen.data import Batches, binarise, load
from tinygen.models import BernoulliMixture, ChowLiuTree, ClassConditional, NaiveBayes, ProductOfBernoullis
from tinygen.random import Generator
from tinygen.training import Training

DEMO = Demo(number=3, data="digits, binarised", minutes=0.5, steps=60, quick_steps=3, datasets=("digits", "full"))

PIXELS, CLASSES = 28 * 28, 10
SMOOTHINGS = (0.03, 0.1, 0.3, 1.0, 3.0)


def main(run: Run) -> None:
    # -- data: intensities to learn from, held-out digits binarised once ------------------------------------------
    few = 18 if run.quick else 1
    train, held_out = load(run.data).train, load(run.data, binarised=True).held_out
    x, labels = flat(train.images)[::few], train.labels[::few]
    test, test_labels = flat(held_out.images)[::few], held_out.labels[::few]
    smoothing = chosen_smoothing(run, x, labels)

    # -- counting: these four take one pass over the data ------------------------------------------------------------
    models = {
        "independent pixels": ProductOfBernoullis(PIXELS, smoothing["independent pixels"]).fit(x),
        "naive Bayes": NaiveBayes(CLASSES, PIXELS, smoothing["naive Bayes"]).fit(x, labels),
        "Chow-Liu tree": ChowLiuTree(PIXELS, smoothing["Chow-Liu tree"]).fit(x),
        "a tree for each class": trees(smoothing["a tree for each class"]).fit(x, labels),
    }

    # -- EM: the mixture, whose templates begin near digits that were chosen far apart -------------------------------
    mixture = BernoulliMixture(500 if run.data == "full" else 100, PIXELS, smoothing["mixture"])
    mixture.initialise(x, run.rng)
    step = lambda i, rng: {"loss": -mixture.em_step(x), "held out": -mixture.log_prob(test).mean()}
    training = run.train(step, {"model": mixture}, read_every=1)
    models["mixture"] = mixture

    # -- what they learned -------------------------------------------------------------------------------------------
    by_class = models["a tree for each class"]
    picture = lambda drawn: plotting.save(run.path("samples.png"), plotting.images(as_images(drawn[:100]), "Samples"))
    if run.save_samples(lambda n: by_class.sample(n, run.rng), picture):
        return
    measure(run, models, test, test_labels, training.losses)
    regression = logistic_regression(x, labels, run)
    run.metric("% right: logistic regression", 100 * np.mean(regression(test) == test_labels))
    if run.draws:
        draw_samples(run, models, test, test_labels)
        draw_trees(run, models, x, labels)
        draw_mixture(run, mixture, training)
        draw_generative_against_discriminative(run, x, labels, test, test_labels, smoothing)


def flat(images: np.ndarray) -> np.ndarray:
    """(N, 28, 28, 1) to (N, 784)."""
    return images.reshape(-1, PIXELS)


def as_images(x: np.ndarray) -> np.ndarray:
    """(..., 784) to (..., 28, 28)."""
    return x.reshape(*x.shape[:-1], 28, 28)


def trees(smoothing: float) -> ClassConditional:
    return ClassConditional([ChowLiuTree(PIXELS, smoothing) for _ in range(CLASSES)])


def chosen_smoothing(run: Run, x: np.ndarray, labels: np.ndarray, most: int = 9000) -> dict[str, float]:
    """For each model the smoothing with which it gives most to a ninth of the training set, fitted to the rest."""
    x, labels = x[:most], labels[:most]
    aside = np.arange(len(x)) % 9 == 8
    check, x, labels = binarise(x[aside], run.rng), x[~aside], labels[~aside]
    fitted = {
        "independent pixels": lambda a: ProductOfBernoullis(PIXELS, a).fit(x),
        "naive Bayes": lambda a: NaiveBayes(CLASSES, PIXELS, a).fit(x, labels),
        "Chow-Liu tree": lambda a: ChowLiuTree(PIXELS, a).fit(x),
        "a tree for each class": lambda a: trees(a).fit(x, labels),
        "mixture": lambda a: BernoulliMixture(100, PIXELS, a).fit(x, Generator(run.seed), steps=run.steps // 3),
    }
    candidates = SMOOTHINGS[:2] if run.quick else SMOOTHINGS
    return {
        name: max(candidates, key=lambda a: fit(a).log_prob(check).mean())
        for name, fit in run.progress(list(fitted.items()), "how much to smooth", unit="model")
    }


def logistic_regression(x: np.ndarray, labels: np.ndarray, run: Run) -> Callable[[np.ndarray], np.ndarray]:
    """p(y|x) = softmax(W x + b), trained on log p(y|x): the discriminative twin of naive Bayes, whose log p(y|x) is
    linear in x too. Returns the function from images to classes."""
    steps = 50 if run.quick else 600
    net = nn.Linear(PIXELS, CLASSES, rng=run.rng)
    optimiser = optim.Adam(net.parameters(), lr=1e-2, schedule=optim.cosine(steps))
    batches = Batches(x, labels, size=128, rng=run.rng)
    for _ in range(steps):
        images, targets = next(batches)
        ops.mean(ops.cross_entropy(net(binarise(images, run.rng)), targets)).backward()
        optimiser.step()
        optimiser.zero_grad()

    def predict(images: np.ndarray) -> np.ndarray:
        with no_grad():
            return net(images).numpy().argmax(axis=1)

    return predict


# -- measuring -----------------------------------------------------------------------------------------------------


def measure(run: Run, models: dict, x: np.ndarray, labels: np.ndarray, losses: np.ndarray) -> None:
    bars = {"mixture": 141.0, "Chow-Liu tree": 137.0, "a tree for each class": 117.0}
    known = {"mixture": 139.8, "Chow-Liu tree": 135.8, "a tree for each class": 115.9}
    reference = {name: {"reference": nats, "reference_name": "a plain run"} for name, nats in known.items()}
    if run.data == "full":
        reference = {"mixture": {"reference": 137.64, "reference_name": "published, 500 components"}}
    for name, model in models.items():
        nats = -model.log_prob(x).mean()
        run.metric(f"-log p(x): {name}", nats, at_most=bars.get(name), **reference.get(name, {}))
    by_class, naive = models["a tree for each class"], models["naive Bayes"]
    given = by_class.log_joint(x)[np.arange(len(x)), labels] - np.log(by_class.prior.data[labels])
    run.metric("-log p(x|y): a tree for each class", -given.mean())
    run.metric("largest fall of the EM objective", np.diff(losses).max(initial=0), at_most=1e-4)
    for name in ("a tree for each class", "naive Bayes"):
        run.metric(f"% right: {name}", 100 * np.mean(models[name].predict(x) == labels))
    sure = np.exp(naive.log_joint(x).max(axis=1) - naive.log_prob(x))
    run.metric("% right: naive Bayes by its own account", 100 * sure.mean())


# -- drawing ---------------------------------------------------------------------------------------------------------


def draw_samples(run: Run, models: dict, test: np.ndarray, labels: np.ndarray) -> None:
    """Two digits of each class from each model that knows classes, twenty of any class from the others."""
    digits = np.repeat(np.arange(CLASSES), 2)
    rows = {"held out": np.concatenate([test[labels == digit][:2] for digit in range(CLASSES)])}
    for name in ("a tree for each class", "naive Bayes"):
        rows[name] = models[name].sample(len(digits), run.rng, digits)
    for name in ("mixture", "Chow-Liu tree", "independent pixels"):
        rows[name] = models[name].sample(len(digits), run.rng)
    pictures = as_images(np.concatenate(list(rows.values())))
    plotting.save(run.path("samples.png"), plotting.images(pictures, columns=len(digits), rows=list(rows)))


def draw_trees(run: Run, models: dict, x: np.ndarray, labels: np.ndarray) -> None:
    """Edges over the mean image, and digits that grow along them: a pixel is drawn once its parent is known."""
    of_class = models["a tree for each class"].densities
    panels = [tree_over(models["Chow-Liu tree"], x, "The tree of all digits")]
    panels += [tree_over(of_class[digit], x[labels == digit], f"That of digit {digit}") for digit in (0, 4)]
    plotting.save(run.path("trees.png"), *panels)

    digits, known = np.tile(np.arange(CLASSES), 2), np.unique(np.geomspace(1, PIXELS, 60).astype(int))
    whole = np.stack([of_class[digit].sample(1, run.rng)[0] for digit in digits])
    place = np.stack([np.argsort(of_class[digit].order.data) for digit in digits])
    frames = np.where(place < known[:, None, None], whole, 0.35)
    panel = plotting.images(as_images(frames), "Drawn along the trees", columns=CLASSES)
    captions = [f"{count} of {PIXELS} pixels" for count in known]
    plotting.animate(run.path("growing.gif"), panel, captions=captions, fps=10, dpi=150)


def tree_over(tree: ChowLiuTree, images: np.ndarray, title: str) -> plotting.Panel:
    """The tree's edges as lines between pixels, in the colour of their mutual information, over the mean image.

    Those below 0.01 nats are left out: pixels that are always white hang on any other.
    """
    child = np.flatnonzero(tree.information.data > 0.01)
    ends = np.stack([child, tree.parent.data[child]], axis=1)
    pieces = np.stack([ends % 28 + 0.5, 27.5 - ends // 28], axis=-1)  # rows of the image run downwards
    strength, extent = tree.information.data[child], (0.0, 28.0, 0.0, 28.0)
    weakest_first = np.argsort(strength)
    ground = plotting.heat_map(as_images(images.mean(axis=0))[::-1], extent, top=1.5, colours="Greys")
    names = {"xlabel": "column", "ylabel": "row, from below", "label": "nats"}
    edges = plotting.segments(pieces[weakest_first], strength[weakest_first], title, extent, thickness=1.4, **names)
    return plotting.overlay(edges, ground)


def draw_mixture(run: Run, mixture: BernoulliMixture, training: Training) -> None:
    heaviest = np.argsort(-mixture.weights.data)[:100]
    curves = {"objective": training.losses[1:], "held out": training.values["held out"][1:]}
    steps = np.arange(1, training.steps)
    plotting.save(
        run.path("mixture.png"),
        plotting.images(as_images(mixture.means.data[heaviest]), f"Templates, of {mixture.components}", columns=10),
        plotting.curve(curves, "EM", steps, xlabel="step", ylabel="nats per digit"),
    )


def draw_generative_against_discriminative(
    run: Run, x: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, smoothing: dict
) -> None:
    """How many held-out digits are named rightly by classifiers that learned from 20, 50, ... digits, in per cent.

    Of few digits several sets are drawn, and the figures averaged.
    """
    most = 50 if run.quick else len(x)
    sizes = np.array([m for m in (20, 50, 100, 200, 500, 1000, 2000, 5000, 9000, 20_000, 60_000) if m <= most])
    learners = {
        "logistic regression": lambda x, y: logistic_regression(x, y, run),
        "naive Bayes": lambda x, y: NaiveBayes(CLASSES, PIXELS, smoothing["naive Bayes"]).fit(x, y).predict,
        "a tree for each class": lambda x, y: trees(smoothing["a tree for each class"]).fit(x, y).predict,
    }
    right = {name: np.zeros(len(sizes)) for name in learners}
    for i, size in enumerate(run.progress(sizes, "from few digits to many", unit="size")):
        sets = 1 if run.quick else 5 if size <= 500 else 2
        for _ in range(sets):
            own = run.rng.permutation(len(x))[:size]
            for name, learn in learners.items():
                right[name][i] += 100 * np.mean(learn(x[own], labels[own])(test) == test_labels) / sets
    panel = plotting.curve(
        right, "Digits named rightly", sizes, "digits to learn from", "% of the held-out digits", log="x"
    )
    plotting.save(run.path("generative_or_discriminative.png"), panel)
