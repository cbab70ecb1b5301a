"""Sampling by the inverse CDF: one uniform number becomes a number of any distribution.

A computer can draw uniform numbers. Where do all others come from?

The share of a distribution that lies below x is its CDF, F(x), which rises from 0 to 1. Choose a height u between 0 and
1 at random, go across until you meet the curve, go down: where F is steep, many heights end on few x, and so the
points pile up as the density says. The way across and down is the quantile function Q = F^-1.

Three kinds of Q are used here. That of the normal distribution has no formula, but a ratio of polynomials gives all its
digits (Wichura 1988); Box & Muller (1958) draw from the same distribution without it. That of a mixture is found by
halving intervals. And of a distribution that only 20,000 draws are known of, Q is learned: an increasing network, whose
loss has its least value where a share u of the data lies below Q(u). This last one is already a deep generative model,
in one dimension: noise in, data out, and the density by the change of variables.

Papers: Wichura 1988, "Algorithm AS 241: The percentage points of the normal distribution"; Box & Muller 1958, "A note
on the generation of random normal deviates"; Koenker & Bassett 1978, "Regression quantiles". The maps themselves are
in tinygen/models/inverse_cdf.py.
"""

import numpy as np

from demos.runner import Demo, Run
from tinygen import no_grad, ops, optim, plotting
from tinygen.data import GaussianMixture
from tinygen.metrics import beside_floor
from tinygen.models import QuantileMap
from tinygen.models.inverse_cdf import bisected, box_muller, normal_quantile

DEMO = Demo(
    number=1,
    data="a mixture in 1-D",
    minutes=0.2,
    steps=2000,
    quick_steps=100,
    picture="sampling.gif",
)

DATA = GaussianMixture([[-2.5], [0.3], [3.0]], std=[0.6, 0.25, 0.9], weights=[0.35, 0.25, 0.4])
LOW, HIGH = -6.0, 8.0  # what lies outside has a probability below 1e-7
KNOWN, BATCH = 20_000, 256
LEVELS = (np.arange(1000) + 0.5) / 1000


def cdf(x: np.ndarray) -> np.ndarray:
    """F(x) = sum_k w_k Phi((x - mu_k) / s_k) of the mixture."""
    return ops.ndtr((x[..., None] - DATA.means[:, 0]) / DATA.std) @ DATA.weights


def main(run: Run) -> None:
    # -- the unknown distribution: all that the map will ever see of it ------------------------------------------
    known = DATA.sample(KNOWN, run.rng)[:, 0]
    exact = bisected(cdf, LEVELS, LOW, HIGH)

    # -- learning its quantile function ---------------------------------------------------------------------------
    model = QuantileMap(units=32, low=float(known.min()), high=float(known.max()))
    schedule = optim.cosine(run.steps, warmup=run.steps // 50)
    optimiser = optim.Adam(model.parameters(), lr=2e-2, schedule=schedule)

    def step(i, rng):
        loss = model.loss(known[rng.integers(KNOWN, BATCH)], rng)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return {"loss": loss, "distance": distance(model, exact)}

    training = run.train(step, {"model": model, "optimiser": optimiser})
    picture = lambda x: plotting.save(run.path("samples.png"), densities(model, x))
    if run.save_samples(lambda n: model.sample(n, run.rng), picture):
        return
    measure(run, model, exact)
    if run.draws:
        draw(run, model, exact, training.values["distance"])


def distance(model: QuantileMap, exact: np.ndarray) -> float:
    """W1 between the model and the distribution: the mean of |Q(u) - exact Q(u)| over all levels."""
    with no_grad():
        return float(np.mean(np.abs(model(LEVELS).numpy() - exact)))


# -- measuring -----------------------------------------------------------------------------------------------------


def measure(run: Run, model: QuantileMap, exact: np.ndarray) -> None:
    from scipy.special import ndtri
    from scipy.stats import kstest

    n = 10_000 if run.quick else 100_000
    p = np.concatenate([run.rng.uniform(n, dtype=np.float64), 10.0 ** -run.rng.uniform(n, 0, 300, np.float64)])
    error = np.max(np.abs(normal_quantile(p) / ndtri(p) - 1))
    run.metric("normal quantile, relative error", error, reference=1e-16, reference_name="Wichura", at_most=1e-14)

    u, v, w = run.rng.uniform((3, n), dtype=np.float64)
    drawn = {
        "normals by quantile": (normal_quantile(np.maximum(u, 2.0**-54)), "norm"),
        "normals by Box-Muller": (np.concatenate(box_muller(v[::2], v[1::2])), "norm"),
        "mixture by bisection": (bisected(cdf, w, 2 * LOW, 2 * HIGH), cdf),
        "mixture by the learned map": (model.sample(2000, run.rng).astype(np.float64), cdf),
    }
    for name, (x, against) in drawn.items():
        run.metric(f"KS test, p: {name}", kstest(x, against).pvalue, at_least=0.01)

    w1 = lambda x, y: np.mean(np.abs(np.sort(x, axis=0) - np.sort(y, axis=0)))
    sample = lambda n, rng: model.sample(n, rng)[:, None]
    pairs = beside_floor(w1, sample, DATA.sample, 2000, run.rng)
    floor = {"reference": pairs.floor, "reference_name": "data against data"}
    run.metric("learned map, W1 of 2000 points", pairs.value, at_most=2 * pairs.floor, **floor)
    run.metric("learned map, W1 / data against data", pairs.ratio, reference=1, reference_name="perfect", at_most=2)
    run.metric("learned map, W1 of the map itself", distance(model, exact), reference=0, reference_name="exact")


# -- drawing ---------------------------------------------------------------------------------------------------------


def draw(run: Run, model: QuantileMap, exact: np.ndarray, distances: np.ndarray) -> None:
    with no_grad():
        learned = model(LEVELS).numpy()
    x = np.linspace(LOW, HIGH, 400)
    plotting.save(
        run.path("learned.png"),
        plotting.curve({"exact Q(u)": exact, "learned": learned}, "The quantile function", LEVELS, "u", "x"),
        densities(model, model.sample(20_000, run.rng)),
        plotting.curve(distances, "While training", ylabel="W1 between map and exact Q", log="y"),
    )
    draw_two_ways_to_normals(run)
    frames, heights = across_and_down(run)
    way = plotting.curve(cdf(x), "From a random height across to F, and down", x, "x", "u")
    density = plotting.curve(np.exp(DATA.log_prob(x[:, None])), "The pile, and the density p = F'", x, "x", "p(x)")
    panels = plotting.overlay(way, falling(frames)), plotting.overlay(density, bars(heights))
    plotting.animate(run.path("sampling.gif"), *panels, fps=12)


def densities(model: QuantileMap, samples: np.ndarray) -> plotting.Panel:
    """The exact density, the learned one, which is one over the slope of Q, and a histogram of samples."""
    u = ops.ndtr(np.linspace(-5, 5, 4000))
    at, p = model.density(u)
    x = np.linspace(LOW, HIGH, 400)
    counts = np.histogram(samples, np.linspace(LOW, HIGH, 141))[0] / (len(samples) * 0.1)
    named = {
        "exact density": np.exp(DATA.log_prob(x[:, None])),
        "learned": np.interp(x, at, p, left=0, right=0),
    }
    return plotting.overlay(bars(counts[None]), plotting.curve(named, "The density", x, "x", "p(x)"))


def bars(heights: np.ndarray) -> plotting.Panel:
    return plotting.bars(heights, np.linspace(LOW, HIGH, heights.shape[1] + 1), ylabel="p(x)")


def across_and_down(run: Run, a_frame: int = 25, frames: int = 60, way: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Points (frames, n, 2) on their way from height u across to the curve and down, and the pile of those arrived."""
    u = run.rng.uniform(a_frame * (frames - 2 * way), dtype=np.float64)
    x = bisected(cdf, u, 2 * LOW, 2 * HIGH)
    age = (np.arange(frames)[:, None] - np.arange(len(u)) // a_frame) / way  # 0 to 1 across, 1 to 2 down
    across, down = np.clip(age, 0, 1), np.clip(age - 1, 0, 1)
    points = np.stack([LOW + (x - LOW) * across, u * (1 - down)], axis=-1)
    points[(age < 0) | (age > 2)] = np.nan
    edges = np.linspace(LOW, HIGH, 71)
    piles = [np.histogram(x[age[t] >= 2], edges)[0] / (len(u) * (edges[1] - edges[0])) for t in range(frames)]
    return points, np.array(piles)


def falling(points: np.ndarray) -> plotting.Panel:
    def draw(ax):
        ax.set(xlim=(LOW, HIGH), ylim=(0, 1.02))
        (dots,) = ax.plot([], [], "o", color=plotting.VERMILION, markersize=2.5, markeredgewidth=0)
        return lambda t: dots.set_data(points[t].T)

    return plotting.Panel(draw, len(points))


def draw_two_ways_to_normals(run: Run) -> None:
    """The lines of a grid on the unit square, and where the quantile function and Box & Muller take them."""
    lines, along = np.linspace(0.02, 0.98, 25), np.linspace(0.001, 0.999, 101)
    level, t = (a.ravel() for a in np.meshgrid(lines, along, indexing="ij"))
    u1, u2 = np.concatenate([level, t]), np.concatenate([t, level])
    plane = (-3.3, 3.3, -3.3, 3.3)
    views = {
        "Two uniform numbers": ("u", (u1, u2), (0.0, 1.0, 0.0, 1.0)),
        "each through the normal quantile": ("z", (normal_quantile(u1), normal_quantile(u2)), plane),
        "both through Box-Muller": ("z", box_muller(u1, u2), plane),
    }
    panels = []
    for title, (name, xy, extent) in views.items():
        path = np.stack(xy, axis=-1).reshape(-1, len(along), 2)
        pieces = np.stack([path[:, :-1], path[:, 1:]], axis=2).reshape(-1, 2, 2)
        colour = u1.reshape(-1, len(along))[:, 1:].ravel()
        names = {"xlabel": f"${name}_1$", "ylabel": f"${name}_2$"}
        panels.append(plotting.segments(pieces, colour, title, extent, thickness=0.8, **names))
    plotting.save(run.path("normals.png"), *panels, dpi=100)
