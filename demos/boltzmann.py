"""Restricted Boltzmann machines on digits: energies that learning shapes, chains that draw, and a Z to be estimated.

What if a model says how likely one digit is relative to another, but not how likely it is?

An RBM gives each image an energy and calls it the likelier the lower that is. Nothing makes the probabilities sum to
one: their sum Z over all 2^784 images would have to be known. That shapes everything here:

- Learning lowers the energy of digits and raises that of what the model makes up, which a Gibbs chain has to fetch.
  Contrastive divergence (Hinton 2002) begins the chain at the digits and goes one step, CD-1, or ten; it is quick, and
  blind to what lies far from any digit. Persistent chains (Tieleman 2008) go on from step to step, and find it.
- Drawing is running such a chain for long. The GIF shows how slowly it leaves one digit for another.
- Measuring needs Z. With 16 hidden units it is summed exactly; with 500, annealed importance sampling estimates it,
  from below, and run backwards from above (Salakhutdinov & Murray 2008; Grosse, Ghahramani & Adams 2015). With 16 both
  are held against the truth, over more and more temperatures.

A last machine has the label as one more visible unit (Larochelle & Bengio 2008). Held fast, it asks for a digit of that
class; left open, it classifies.

Figures are nats per digit on digits that are held out and binarised once. Of the 9,000 digits that come along, pixels
are drawn anew at every step; with `--data full` training pixels are drawn once too.

    python -m demos boltzmann --data full --steps 18000        some ten minutes

The model is in tinygen/models/rbm.py.
"""

import numpy as np

from demos.runner import Demo, Run
from tinygen import optim, plotting
from tinygen.data import Batches, binarise, load
from tinygen.models import RBM
from tinygen.models.rbm import (
    Chains,
    annealed_log_z,
    exact_log_z,
    exact_samples,
    log_odds,
    reverse_log_z,
    sample,
    temperatures,
)

DEMO = Demo(
    number=6,
    data="digits, binarised",
    minutes=3,
    steps=4000,
    quick_steps=20,
    datasets=("digits", "full"),
)

PIXELS, BATCH, RATE = 28 * 28, 100, 0.05
FEW, MANY = 16, 500  # hidden units
BAR, PUBLISHED = 95.0, 86.34  # nats of 500 hidden units on MNIST, pixels drawn once; the second by CD-25


def main(run: Run) -> None:
    # -- data: grey levels or pixels to learn from; pixels held out ------------------------------------------------
    drawn_once = load(run.data, binarised=True)
    train = flat(drawn_once.train.images if drawn_once.name == "full" else load(run.data).train.images)
    x, labels = flat(drawn_once.held_out.images), drawn_once.held_out.labels
    x, labels = (x[::20], labels[::20]) if run.quick else (x, labels)
    coins = log_odds(binarise(train, run.rng))

    # -- one machine with many hidden units, one that knows labels, and three with few, by three ways to learn -----
    many = 40 if run.quick else MANY
    large, chains = fit(run, machine(run, coins, many), train, "training")
    told, _ = fit(run, machine(run, coins, many, drawn_once.train.labels), train, "labels", drawn_once.train.labels)
    small = {}
    for name, steps in (("CD-1", 1), ("CD-10", 10), ("PCD", 0)):
        model = machine(run, coins, 8 if run.quick else FEW)
        small[name], _ = fit(run, model, train, name, cd=steps)

    # -- what they learned ------------------------------------------------------------------------------------------
    gibbs = 100 if run.quick else 2000
    picture = lambda digits: plotting.save(run.path("samples.png"), plotting.images(digits[:100], "Samples"))
    if run.save_samples(lambda n: as_images(sample(large, n, gibbs, run.rng)), picture):
        return
    measure_few(run, small, coins, x)
    measure_many(run, large, chains.v, coins, x, drawn_once.name == "full")
    run.metric("% classified by the RBM with labels", 100 * np.mean(told.free_energies(x).argmin(1) == labels))
    if run.draws:
        draw(run, large, told, coins, x, gibbs)
        draw_temperatures(run, small["PCD"], coins)


def machine(run: Run, coins: np.ndarray, hidden: int, labels: np.ndarray | None = None) -> RBM:
    """An RBM that begins as coins with the data's brightness, pixel by pixel, and nothing hidden behind them."""
    model = RBM(PIXELS, hidden, classes=0 if labels is None else 10, rng=run.rng)
    known = coins if labels is None else np.append(coins, np.log(np.bincount(labels, minlength=10) / len(labels)))
    model.b.data = known.astype(np.float32)
    return model


def fit(
    run: Run, model: RBM, train: np.ndarray, name: str, labels: np.ndarray | None = None, cd: int = 0
) -> tuple[RBM, Chains]:
    """Trains by `cd` steps of contrastive divergence, or, with 0, by one step of as many persistent chains as there are
    digits in a batch. The rate falls to zero in a straight line, so that the chains can catch up."""
    batches = Batches(train, np.zeros(len(train), int) if labels is None else labels, size=BATCH, rng=run.rng)
    optimiser = optim.SGD(model.parameters(), lr=RATE, schedule=lambda k: 1 - k / run.steps)
    start = visible(model, binarise(train[:BATCH], run.rng), None if labels is None else labels[:BATCH])
    chains = Chains(start)

    def step(i, rng):
        x, y = next(batches)
        v = visible(model, binarise(x, rng), y)
        made_up = model.gibbs(v, cd, rng) if cd else chains.step(model, 1, rng)
        loss = model.loss(v, made_up)
        loss.backward()
        model.centre_gradients(v)
        optimiser.step()
        optimiser.zero_grad()
        return loss

    state = {"model": model, "optimiser": optimiser, "batches": batches, "chains": chains}
    run.train(step, state, name=name, read_every=100)
    return model, chains


def visible(model: RBM, x: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    return model.with_labels(x, labels) if model.classes else x


def flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), PIXELS)


def as_images(x: np.ndarray) -> np.ndarray:
    """(..., 784) to (..., 28, 28, 1)."""
    return x.reshape(*x.shape[:-1], 28, 28, 1)


# -- measuring -----------------------------------------------------------------------------------------------------


def measure_few(run: Run, small: dict[str, RBM], coins: np.ndarray, x: np.ndarray) -> None:
    """Exact figures where Z can be summed, and annealing beside them."""
    for name, model in small.items():
        run.metric(f"-log p(x), {model.hidden} hidden, {name}, exact", -model.log_prob(x, exact_log_z(model)).mean())
    exact = exact_log_z(small["PCD"])
    found = annealed_log_z(small["PCD"], coins, temperatures(100 if run.quick else 14_500), 100, run.rng)
    run.metric("log Z: AIS less exact, without its sign", abs(found.log_z - exact), at_most=0.1)


def measure_many(run: Run, model: RBM, v: np.ndarray, coins: np.ndarray, x: np.ndarray, full: bool) -> None:
    betas = temperatures(100 if run.quick else 5000)
    below = annealed_log_z(model, coins, betas, 100, run.rng)
    above = reverse_log_z(model, coins, betas, model.gibbs(v, 20 if run.quick else 2000, run.rng), run.rng)
    paper = {"reference": PUBLISHED, "reference_name": "published, CD-25", "at_most": BAR} if full else {}
    run.metric(f"-log p(x), {model.hidden} hidden, PCD, by AIS", -model.log_prob(x, below.log_z).mean(), **paper)
    run.metric("the same, by reverse AIS", -model.log_prob(x, above.log_z).mean())
    run.metric("standard error of AIS", below.error)


# -- drawing -------------------------------------------------------------------------------------------------------


def draw(run: Run, large: RBM, told: RBM, coins: np.ndarray, x: np.ndarray, steps: int) -> None:
    chosen = np.argsort(-np.linalg.norm(large.W.numpy(), axis=0))[:100]
    filters = large.W.numpy()[:, chosen].T
    filters = 0.5 + filters / (2 * np.abs(filters).max(axis=1, keepdims=True))
    drawn = large.means(sample(large, 100, steps, run.rng), run.rng)
    plotting.save(
        run.path("samples.png"),
        plotting.images(as_images(x[run.rng.permutation(len(x))[:100]]), "Held-out digits"),
        plotting.images(as_images(drawn), f"After {steps:,} Gibbs steps: p(pixel|h)"),
        plotting.images(as_images(filters), "Weights of hidden units"),
    )
    each = np.repeat(np.arange(10), 12)
    v = sample(told, len(each), steps, run.rng, each)
    asked = told.means(told.with_labels(v, each), run.rng)
    plotting.save(
        run.path("conditional.png"),
        plotting.images(as_images(asked), "Chains with the label held fast", 12, [str(digit) for digit in range(10)]),
    )
    draw_chains(run, large, coins)


def draw_chains(run: Run, model: RBM, coins: np.ndarray, n: int = 16) -> None:
    """Chains from coin tosses on, shown ever more seldom."""
    v = model.draw_visible(np.broadcast_to(coins, (n, PIXELS)), run.rng)
    shown = np.unique(np.rint(np.geomspace(1, 60 if run.quick else 4000, 80)).astype(int))
    frames, times = [v], [0]
    for t, now in enumerate(model.chain(v, int(shown[-1]), run.rng), 1):
        if t in shown:
            frames.append(model.means(now, run.rng))
            times.append(t)
    captions = [f"{t:,} Gibbs steps" for t in times]
    plotting.animate(
        run.path("chains.gif"), plotting.images(as_images(np.array(frames)), columns=4), captions=captions, fps=8
    )


def draw_temperatures(run: Run, model: RBM, coins: np.ndarray, chains: int = 100) -> None:
    """The error of log Z in both directions, against the number of temperatures."""
    numbers = [29, 58, 116] if run.quick else [29, 58, 116, 232, 464, 928, 1856, 3712]
    exact = exact_log_z(model)
    below = [annealed_log_z(model, coins, temperatures(n), chains, run.rng).log_z - exact for n in numbers]
    above = [
        reverse_log_z(model, coins, temperatures(n), exact_samples(model, chains, run.rng), run.rng).log_z - exact
        for n in numbers
    ]
    plotting.save(
        run.path("temperatures.png"),
        plotting.curve(
            {"AIS, from the coins": np.array(below), "reverse AIS, from exact draws": np.array(above)},
            f"Error of log Z, {model.hidden} hidden units",
            x=np.array(numbers),
            xlabel="temperatures",
            ylabel="nats",
            log="x",
            levels={"exact": 0.0},
        ),
    )
