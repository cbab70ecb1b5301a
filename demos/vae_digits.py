"""A variational autoencoder on handwritten digits: likelihood from below, new digits, and a map of what it learned.

How can a model be trained to make digits likely when their likelihood cannot be computed?

Say that a digit comes from a hidden code z: 32 numbers drawn from a standard normal, turned into the probabilities of
784 black or white pixels by a network. The likelihood of a digit is an average over all codes, and nearly all of them
have nothing to do with it. Kingma & Welling (2014) and Rezende et al. (2014) train a second network to say which ones
do, and with it a lower bound of log p(x), in two parts: how well codes reconstruct the digit, and how many nats they
tell about it beyond what the prior knows.

The bound is then drawn tight for measuring: averaged over 1,000 codes for each digit, weighed by how likely they are,
it comes close to log p(x) itself (Burda et al. 2016).

With 9,000 digits overfitting is what there is to fight. Two things help: pixels are binarised anew at every step, and
each digit is turned, stretched and slanted a little (`jittered`), which is worth a nat. The figures are on 1,000 digits
that training never sees, binarised once.

Papers: Kingma & Welling 2014, "Auto-encoding variational Bayes"; Rezende, Mohamed & Wierstra 2014, "Stochastic
backpropagation and approximate inference in deep generative models"; Burda, Grosse & Salakhutdinov 2016, "Importance
weighted autoencoders". The model itself is in tinygen/models/vae.py.
"""

from itertools import pairwise

import numpy as np

from demos.runner import Demo, Run
from tinygen import no_grad, ops, optim, plotting
from tinygen.data import Batches, binarise, digits
from tinygen.distributions import Normal, kl
from tinygen.metrics import active_units, importance_weighted_bound
from tinygen.models import VAE
from tinygen.nn import MLP
from tinygen.training import Training

DEMO = Demo(number=11, data="digits", minutes=2, steps=6000, quick_steps=60)

LATENT, WIDTH, BATCH = 32, 400, 128
PIXELS = 28 * 28


def main(run: Run) -> None:
    # -- data: 9,000 digits to learn from; 1,000 held out, their pixels drawn once ----------------------------
    train, held_out = digits().train.images, digits(binarised=True).held_out
    x = held_out.images.reshape(-1, PIXELS)[:: 10 if run.quick else 1]
    labels = held_out.labels[:: 10 if run.quick else 1]

    # -- model and training ------------------------------------------------------------------------------------
    model = perceptrons(LATENT, WIDTH, run.rng)
    training = fit(run, model, train, run.steps, "training", jitter=0.15)

    # -- what it learned ---------------------------------------------------------------------------------------
    picture = lambda drawn: plotting.save(run.path("samples.png"), plotting.images(drawn[:100], "Samples"))
    if run.save_samples(lambda n: as_images(model.sample(n, run.rng)), picture):
        return
    nats = measure(run, model, x)
    if run.draws:
        draw(run, model, x, labels, training, nats)
        draw_plane(run, train, x, labels)


def perceptrons(latent: int, width: int, rng) -> VAE:
    encoder = MLP([PIXELS, width, width, 2 * latent], ops.silu, rng=rng)
    decoder = MLP([latent, width, width, PIXELS], ops.silu, rng=rng)
    return VAE(encoder, decoder, latent)


def fit(run: Run, model: VAE, images: np.ndarray, steps: int, name: str, jitter: float) -> Training:
    """Trains the model; the course of the loss and of its two parts."""
    batches = Batches(images, size=BATCH, rng=run.rng)
    optimiser = optim.Adam(model.parameters(), lr=3e-3, schedule=optim.cosine(steps, warmup=steps // 40))

    def step(i, rng):
        x = binarise(jittered(next(batches), rng, jitter), rng).reshape(-1, PIXELS)
        reconstruction, divergence = (ops.mean(part) for part in model.elbo(x, rng))
        loss = divergence - reconstruction
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return {"loss": loss, "reconstruction": -reconstruction, "KL": divergence}

    state = {"model": model, "optimiser": optimiser, "batches": batches}
    return run.train(step, state, steps=steps, name=name, read_every=50)


def jittered(images: np.ndarray, rng, strength: float) -> np.ndarray:
    """Each image (28, 28) under a random linear map near the identity, of which some are nearer than others.

    A pixel becomes the one nearest to where the map takes it: nothing is interpolated, so nothing is blurred.
    """
    n, side = images.shape[:2]
    centred = np.stack(np.mgrid[:side, :side], axis=-1).reshape(-1, 2) - np.float32((side - 1) / 2)
    maps = np.eye(2, dtype=np.float32) + strength * rng.uniform((n, 1, 1)) * rng.normal((n, 2, 2))
    row, column = np.rint(np.clip(centred @ maps + (side - 1) / 2, 0, side - 1)).astype(np.intp).transpose(2, 0, 1)
    return images[np.arange(n)[:, None], row, column].reshape(images.shape)


def as_images(x: np.ndarray) -> np.ndarray:
    """(..., 784) to (..., 28, 28, 1)."""
    return x.reshape(*x.shape[:-1], 28, 28, 1)


# -- measuring -----------------------------------------------------------------------------------------------------


def measure(run: Run, model: VAE, x: np.ndarray, batch: int = 100) -> dict[str, float]:
    """Figures on the held-out digits, 100 at a time; the ELBO and its two parts, by name."""
    k = 20 if run.quick else 1000
    parts, bounds, means = [], [], []
    for x_ in np.split(x, len(x) // batch):
        bounds.append(importance_weighted_bound(lambda c, x_=x_: model.log_weights(x_, c, run.rng), k).per_example)
        means.append(encoded(model, x_))
        with no_grad():
            parts.append([[part.numpy() for part in model.elbo(x_, run.rng)] for _ in range(10)])
    reconstruction, divergence = np.mean(parts, axis=(0, 1, 3))
    nats = {"-ELBO": divergence - reconstruction, "reconstruction": -reconstruction, "KL": divergence}

    bound = -np.mean(np.concatenate(bounds))
    run.metric(
        f"-log p(x), bound of {k} draws", bound, reference=95.4, reference_name="a VAE in PyTorch", at_most=96.0
    )
    for name, value in nats.items():
        run.metric(name, value)
    used = active_units(np.concatenate(means)).count
    run.metric("latents in use", used, reference=LATENT, reference_name="there are")
    return nats


# -- drawing ---------------------------------------------------------------------------------------------------------


def draw(run: Run, model: VAE, x: np.ndarray, labels: np.ndarray, training: Training, nats: dict[str, float]) -> None:
    z = run.rng.normal((100, LATENT))
    plotting.save(
        run.path("samples.png"),
        plotting.images(as_images(x[run.rng.permutation(len(x))[:100]]), "Held-out digits"),
        plotting.images(as_images(model.means(z)), "Codes from the prior: pixel probabilities"),
    )
    chosen = np.concatenate([np.flatnonzero(labels == digit)[:2] for digit in range(10)])
    codes = encoded(model, x[chosen])
    pairs = np.stack([x[chosen], model.means(codes)], axis=1).reshape(2, 10, 2, PIXELS).swapaxes(1, 2)
    plotting.save(
        run.path("reconstructions.png"),
        plotting.images(as_images(pairs.reshape(-1, PIXELS)), "Held out, and reconstructed", 10, ["x", "E[x|z]"] * 2),
    )
    ends = codes[::2]
    walks = np.stack([between(ends[digit], ends[(digit + 1) % 10], 12) for digit in (0, 2, 4, 6, 8)])
    walks = as_images(model.means(walks.reshape(-1, LATENT)))
    plotting.save(run.path("walk.png"), plotting.images(walks, "Straight lines from code to code", columns=12))
    curves = {"-ELBO": training.losses, **{name: training.values[name] for name in ("reconstruction", "KL")}}
    level = {"-ELBO, held out, no jitter": nats["-ELBO"]}
    told, rank = in_each_latent(model, x), np.arange(LATENT) + 1
    plotting.save(
        run.path("learning.png"),
        plotting.curve(curves, "The two parts of the bound", smooth=100, ylabel="nats", log="y", levels=level),
        plotting.curve(told, "What each latent tells of x", rank, xlabel="latent, by rank", ylabel="KL, nats"),
    )


def encoded(model: VAE, x: np.ndarray) -> np.ndarray:
    """The means of q(z|x)."""
    with no_grad():
        return model.encode(x).mean.numpy()


def in_each_latent(model: VAE, x: np.ndarray) -> np.ndarray:
    """The KL of q(z|x) from the prior, latent by latent, averaged over x; the largest first."""
    with no_grad():
        q = model.encode(x)
        return -np.sort(-kl(Normal(q.loc, q.scale), Normal(0, 1)).numpy().mean(0))


def between(a: np.ndarray, b: np.ndarray, steps: int) -> np.ndarray:
    """Points on the line from a to b, both ends included, (steps, len(a))."""
    t = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    return (1 - t) * a + t * b


def draw_plane(run: Run, train: np.ndarray, x: np.ndarray, labels: np.ndarray) -> None:
    """A second model, whose codes are points in a plane: where the digits lie, what lies everywhere, and a walk.

    The plane is drawn as the unit square of (F(z_1), F(z_2)), F being the normal CDF: there the prior is uniform.
    """
    plane = perceptrons(2, WIDTH // 2, run.rng)
    fit(run, plane, train, max(run.steps // 2, 20), "2-D map", jitter=0.0)
    square = (0.0, 1.0, 0.0, 1.0)
    tiles = ops.ndtri(plotting.grid(square, 20)[::-1].reshape(-1, 2)).astype(np.float32)
    codes = encoded(plane, x)
    stops = [np.median(codes[labels == digit], axis=0) for digit in (0, 6, 2, 3, 5, 8, 4, 9, 7, 1)]
    path = np.concatenate([between(a, b, 9)[:-1] for a, b in pairwise(stops)])
    everywhere, seen = as_images(plane.means(tiles)), as_images(plane.means(path))
    axes = {"extent": square, "xlabel": "$F(z_1)$", "ylabel": "$F(z_2)$"}
    known = plotting.classes(ops.ndtr(codes), labels, "Means of q(z|x), held-out digits", **axes)
    everywhere = plotting.images(everywhere, "E[x|z] all over the plane", columns=20, **axes)
    walker = plotting.scatter(ops.ndtr(path)[:, None], extent=square, colour=plotting.INK, size=12)
    plotting.save(run.path("plane.png"), known, everywhere)
    plotting.animate(
        run.path("walk.gif"), plotting.overlay(known, walker), plotting.images(seen[:, None], "E[x|z]"), fps=10
    )
