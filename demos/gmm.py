"""Gaussian mixtures by expectation-maximisation: eight clusters found, and how many there are.

Points came from eight clusters of different sizes, and nobody says which from which. Where are the clusters?

Two questions, and each would be easy if the other were answered. Who belongs to whom? By Bayes' rule, if the clusters
were known. Where are the clusters? At the means of their points, if it were known whose they are. EM answers both by
turns, beginning with a guess, and every turn makes the data likelier (Dempster, Laird & Rubin 1977). What it cannot do
is leave the hill that it began on: two components that share one cluster seldom part. So it begins several times, and
the film shows the best start beside the worst.

Since the density is known that the points are drawn from, the fit is held against its entropy: nobody's average
surprise can be less. How many components there should be is asked of the data too, by Schwarz's criterion (BIC), which
sets a price of (log N) / 2 nats on each parameter.

Papers: Dempster, Laird & Rubin 1977, "Maximum likelihood from incomplete data via the EM algorithm"; Arthur &
Vassilvitskii 2007, "k-means++"; Schwarz 1978, "Estimating the dimension of a model". The model itself is in
tinygen/models/gaussian_mixture.py.
"""

import numpy as np

from demos.runner import Demo, Run
from tinygen import plotting
from tinygen.data import eight_unequal_gaussians
from tinygen.metrics import mode_coverage
from tinygen.models import GMM

DEMO = Demo(
    number=2, data="8 unequal Gaussians", minutes=0.2, steps=100, quick_steps=10, picture="em.gif"
)

DATA = eight_unequal_gaussians()
N, STARTS, MOST = 5000, 10, 12
EXTENT = (-5.5, 5.5, -5.5, 5.5)


def main(run: Run) -> None:
    x = DATA.sample(500 if run.quick else N, run.rng)

    # -- where to begin: each start climbs for a while, and the highest begins again ------------------------------
    starts = [beginning(x, run) for _ in range(STARTS)]
    reached = [climb(start, x, steps=run.steps)[1][-1] for start in run.progress(starts, "starts", unit="start")]
    best, worst = starts[int(np.argmax(reached))], starts[int(np.argmin(reached))]

    # -- EM: a step is one turn, and has no learning rate -----------------------------------------------------------
    model = GMM(8, 2)
    model.load_state_dict(best)
    training = run.train(lambda i, rng: {"loss": -model.em_step(x)}, {"model": model}, read_every=1)

    picture = lambda points: plotting.save(run.path("samples.png"), plotting.scatter(points, "Samples", EXTENT))
    if run.save_samples(lambda n: model.sample(n, run.rng), picture):
        return
    measure(run, model, x, training.losses)
    sizes = choose_size(run, x)
    if run.draws:
        draw(run, model, x, sizes, np.array(reached))
        draw_film(run, x, best, worst)


def beginning(x: np.ndarray, run: Run) -> dict:
    """The parameters of a mixture of eight by k-means++."""
    model = GMM(8, 2)
    model.initialise(x, run.rng)
    return model.state_dict()


def climb(start: dict, x: np.ndarray, steps: int) -> tuple[list[dict], list[float]]:
    """The parameters on the way from a start, and the mean log-likelihood of each."""
    model, path, log_p = GMM(8, 2), [], []
    model.load_state_dict(start)
    for _ in range(steps):
        path.append(model.state_dict())
        log_p.append(model.em_step(x))
    return path, log_p


# -- measuring -----------------------------------------------------------------------------------------------------


def measure(run: Run, model: GMM, x: np.ndarray, losses: np.ndarray) -> None:
    """The divergence from the truth is a mean over fresh points of log p / q, which is far less noisy than -log q."""
    fresh = DATA.sample(10_000 if run.quick else 100_000, run.rng)
    excess = float(np.mean(DATA.log_prob(fresh) - model.log_prob(fresh)))
    entropy = DATA.entropy()
    run.metric("-log p(x), nats", entropy + excess, reference=entropy, reference_name="entropy", at_most=entropy + 0.02)
    run.metric("divergence from the truth, nats", excess, reference=0, reference_name="exact", at_most=0.02)
    run.metric("-log p(x) of the data it was fitted to", -model.log_prob(x).mean())
    run.metric("-log p of the same under the truth", -DATA.log_prob(x).mean())
    falls = np.sum(np.diff(losses) > 1e-12)  # rounding may take 1e-15
    run.metric("turns after which the likelihood was lower", falls, reference=0, reference_name="proven", at_most=0)
    modes = mode_coverage(model.sample(20_000, run.rng), DATA.means, DATA.std, DATA.weights)
    run.metric("modes found by its samples", modes.found, reference=8, reference_name="exact", at_least=8)


def choose_size(run: Run, x: np.ndarray) -> dict[str, np.ndarray]:
    """Mixtures of 1 to 12 components: BIC, and -log p of points seen and not seen, in nats per point, less what the
    truth has on the same points. An estimate may be better than the truth on what it has seen, and only there."""
    fresh, trials = DATA.sample(10 * len(x), run.rng), 2 if run.quick else 5
    known, unknown = DATA.log_prob(x), DATA.log_prob(fresh)
    rows = []
    for k in run.progress(range(1, MOST + 1), "number of components", unit="fit"):
        model = GMM(k, 2).fit(x, run.rng, starts=trials, trial=15, steps=run.steps)
        excess = [np.mean(known - model.log_prob(x)), np.mean(unknown - model.log_prob(fresh))]
        rows.append([model.bic(x) / len(x) + known.mean(), *excess])
    bic, seen, unseen = np.transpose(rows)
    chosen = int(bic.argmin()) + 1
    run.metric("components chosen by BIC", chosen, reference=8, reference_name="exact", at_least=8, at_most=8)
    return {"BIC / N": bic, "points seen": seen, "points not seen": unseen}


# -- drawing ---------------------------------------------------------------------------------------------------------


def draw(run: Run, model: GMM, x: np.ndarray, sizes: dict[str, np.ndarray], reached: np.ndarray) -> None:
    cells = plotting.grid(EXTENT, 100)
    exact, learned = (np.exp(d.log_prob(cells.reshape(-1, 2))).reshape(100, 100) for d in (DATA, model))
    top = float(exact.max())
    plotting.save(
        run.path("density.png"),
        plotting.scatter(x, f"{len(x):,} points", EXTENT),
        plotting.heat_map(learned, EXTENT, "The mixture fitted to them", top),
        plotting.heat_map(exact, EXTENT, "The density they came from", top),
    )
    k = np.arange(MOST) + 1
    many = {name: nats[6:] for name, nats in sizes.items()}
    ranked, truth = -np.sort(-reached), {"truth": 0}
    plotting.save(
        run.path("order.png"),
        plotting.curve(many, "How many components?", k[6:], "components", "nats above the truth", levels=truth),
        plotting.curve(-ranked, "Where EM ends", np.arange(STARTS) + 1, "start, by rank", "-log p(x) of the data"),
    )


def draw_film(run: Run, x: np.ndarray, best: dict, worst: dict) -> None:
    """The ellipses of the best and of the worst start, turn by turn, more of the early ones than of the late."""
    turns = np.unique(np.rint(np.geomspace(1, run.steps, 45)).astype(int)) - 1
    points = plotting.scatter(x[:1500], extent=EXTENT, colour="#9DB4C0")
    panels, log_p = [], []
    for title, start in (("The best start", best), ("The worst", worst)):
        path, climbed = climb(start, x, run.steps)
        names = ("means", "covariances", "weights")
        means, covariances, weights = (np.array([path[t][name] for t in turns]) for name in names)
        panels.append(plotting.overlay(points, plotting.ellipses(means, covariances, title, EXTENT, weights)))
        log_p.append([climbed[t] for t in turns])
    captions = [f"turn {t}:   -log p = {-a:.3f} and {-b:.3f} nats" for t, a, b in zip(turns, *log_p)]
    plotting.animate(run.path("em.gif"), *panels, captions=captions, fps=8)
