"""Probability distributions: densities, samples, quantiles, entropies and divergences, differentiable throughout.

    q = Normal(mu, sigma, event=1)          # mu and sigma of shape (N, D): arrays, Tensors or numbers
    z = q.rsample(rng)                      # (N, D); gradients flow to mu and sigma
    loss = kl(q, Normal(0, 1, event=1))     # (N,), nats
    log_p = Bernoulli(decoder(z), event=1).log_prob(x)

**One number per event.** A draw is a number (a label of Categorical, a vector of MultivariateNormal and GumbelSoftmax),
and `log_prob`, `entropy` and `kl` give one number, in nats, for each. With `event=n` the last n axes of draws make up
one event, whose parts are independent: those three then sum over them. So a likelihood is summed over dimensions here,
and is averaged over examples by whoever reports it. Everything else (`cdf`, `icdf`, `mean`, `variance`, `std`) remains
per draw. `d.shape` is the shape of one draw, `d.sample(rng)`; `d.sample(rng, shape)` has the shape (*shape, *d.shape).

**Arrays in, arrays out.** Parameters and points are arrays or Tensors; where one of them is a Tensor so is the result,
which then carries gradients to both. Numbers and lists are float32, or of the dtype of the other parameters.
`sample` always gives plain arrays: they are data. `rsample` is the same draw as a differentiable function of the
parameters, for the distributions that have it.

**What is checked.** Parameters given as numbers, lists or NumPy arrays are checked when a distribution is made: a scale
must be positive, a logit must not be NaN, and InputError says which was not. Tensors, and arrays on a GPU, are not:
that would stop the GPU at every step. Make a Tensor positive by construction, with exp or softplus; one that is not
gives NaN, which `tinygen.detect_anomaly()` finds. Shapes are checked always.
"""

from tinygen.distributions.discrete import Bernoulli, Categorical
from tinygen.distributions.discretised import DiscretisedLogistic
from tinygen.distributions.distribution import Distribution
from tinygen.distributions.divergence import kl
from tinygen.distributions.location_scale import Gumbel, Laplace, Logistic, Normal
from tinygen.distributions.mixture import Mixture
from tinygen.distributions.multivariate import MultivariateNormal
from tinygen.distributions.relaxed import GumbelSoftmax, straight_through
from tinygen.distributions.uniform import Uniform

__all__ = [
    "Bernoulli",
    "Categorical",
    "DiscretisedLogistic",
    "Distribution",
    "Gumbel",
    "GumbelSoftmax",
    "Laplace",
    "Logistic",
    "Mixture",
    "MultivariateNormal",
    "Normal",
    "Uniform",
    "kl",
    "straight_through",
]
