"""The variational autoencoder: an image from a hidden code, and a guess of the code from the image.

A latent code z is drawn from a standard normal, an image x from what a decoder makes of z:

    p(z) = N(0, I),    p(x|z) = prod_i Bernoulli(x_i; s(logits_i(z))),    p(x) = int p(x|z) p(z) dz

No one can do the integral: almost no z has anything to do with a given x. So an encoder learns which ones do, a normal
q(z|x) for each x, and both are trained to raise a lower bound of log p(x) (Kingma & Welling 2014, eq. 2 and 3; Rezende
et al. 2014 found the same):

    ELBO = E_q[log p(x|z)] - KL(q(z|x) || p(z)) = log p(x) - KL(q(z|x) || p(z|x))

Its first form is what is computed: reconstruct x well from codes that tell little beyond the prior, in nats both. Its
second says what is lost by a q that is not the true posterior.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygen import ops
from tinygen.autograd import no_grad
from tinygen.distributions import Bernoulli, Distribution, Normal, kl
from tinygen.errors import InputError, ShapeError
from tinygen.nn import Module
from tinygen.random import Generator
from tinygen.tensor import Tensor


class VAE(Module):
    """An encoder and a decoder, any two Modules, under a standard normal prior.

    encoder: called with x (N, *shape), returns (N, 2 latent): the means of q(z|x), then the logarithms of its standard
             deviations
    decoder: called with z (N, latent), returns the logits of p(x|z), (N, *shape)
    latent:  the dimension of z
    beta:    weight of the KL in the loss (Higgins et al. 2017, eq. 4): above 1, codes that say less and on the whole
             in more independent words; no longer a bound of log p(x) below 1
    k:       draws of z in the loss. With more than one the loss is the importance-weighted bound (Burda et al. 2016)

    Images are binary, as floats 0 and 1. For other data, override `decode`.
    """

    def __init__(self, encoder: Callable, decoder: Callable, latent: int, beta: float = 1.0, k: int = 1):
        if latent < 1 or k < 1 or not beta >= 0:
            raise InputError(
                f"VAE: latent and k must be at least 1 and beta at least 0, not {latent}, {k} and {beta}."
            )
        if k > 1 and beta != 1:
            raise InputError(f"VAE: beta = {beta} weighs the KL, but the bound of k = {k} draws has none; set one.")
        self.encoder, self.decoder, self.latent, self.beta, self.k = encoder, decoder, latent, beta, k
        self.prior = Normal(0, 1, event=1)

    # -- the two conditionals ------------------------------------------------------------------------------------

    def encode(self, x: Any) -> Normal:
        """q(z|x) = N(mu(x), diag sigma(x)^2). x: (N, *shape); one event is one code, (latent,)."""
        out = self.encoder(x)
        if out.shape != (len(x), 2 * self.latent):
            raise ShapeError(
                f"VAE: of {len(x)} images the encoder made an array of shape {out.shape}; each needs {2 * self.latent} "
                f"numbers, mean and log standard deviation of {self.latent} latents."
            )
        return Normal(out[:, : self.latent], ops.exp(out[:, self.latent :]), event=1)

    def decode(self, z: Any) -> Distribution:
        """p(x|z): one Bernoulli for each pixel. z: (..., latent); one event is one image, of the decoder's shape."""
        logits = self.decoder(z.reshape(-1, self.latent))
        return Bernoulli(logits.reshape(*z.shape[:-1], *logits.shape[1:]), event=logits.ndim - 1)

    # -- training ------------------------------------------------------------------------------------------------

    def loss(self, x: Any, rng: Generator) -> Tensor:
        """What training lowers, averaged over images: -L_k, or for k = 1 the -ELBO with the KL weighed by beta."""
        if self.k > 1:
            return -ops.mean(self.bound(x, self.k, rng))
        reconstruction, divergence = self.elbo(x, rng)
        return ops.mean(self.beta * divergence - reconstruction)

    def elbo(self, x: Any, rng: Generator) -> tuple[Tensor, Tensor]:
        """The two parts of the ELBO = reconstruction - divergence, in nats, each (N,).

            z = mu(x) + sigma(x) eps,  eps ~ N(0, I)                            a draw of q                       eq. 9
            reconstruction = log p(x|z)                                         estimates E_q[log p(x|z)]         eq. 7
            divergence     = 1/2 sum_j (mu_j^2 + sigma_j^2 - 1 - log sigma_j^2) KL(q(z|x) || N(0, I)), exact     app. B

        The equations are those of Kingma & Welling (2014). Drawing the noise eps apart from the parameters makes z a
        differentiable function of them: gradients reach the encoder through z, with far less variance than those of
        estimators that look at log p(x|z) as a number alone.
        """
        q = self.encode(x)
        z = q.rsample(rng)
        return self.decode(z).log_prob(x), kl(q, self.prior)

    def bound(self, x: Any, k: int, rng: Generator) -> Tensor:
        """L_k = log 1/k sum_i w_i of each image, (N,) (Burda et al. 2016, eq. 8): the ELBO's estimate at k = 1, and
        ever closer to log p(x) from below as k grows."""
        return ops.logsumexp(self.log_weights(x, k, rng), axis=0) - math.log(k)

    # -- measuring -----------------------------------------------------------------------------------------------

    def log_weights(self, x: Any, k: int, rng: Generator) -> Tensor:
        """log w_i = log p(x|z_i) + log p(z_i) - log q(z_i|x) for k draws of q(z|x) each, (k, N).

        The mean of w is p(x), of which `tinygen.metrics.importance_weighted_bound` makes a figure for many draws.
        """
        q = self.encode(x)
        z = q.rsample(rng, (k,))
        return self.decode(z).log_prob(x) + self.prior.log_prob(z) - q.log_prob(z)

    # -- sampling ------------------------------------------------------------------------------------------------

    def sample(self, n: int, rng: Generator) -> np.ndarray:
        """n images x ~ p(x|z) with z ~ p(z), float32 0 and 1, (n, *shape)."""
        with no_grad():
            return self.decode(self.prior.sample(rng, (n, self.latent))).sample(rng)

    def means(self, z: np.ndarray) -> np.ndarray:
        """E[x|z], the probability that each pixel is 1: images without the noise of their pixels. z: (..., latent)."""
        with no_grad():
            return self.decode(z).mean.numpy()
