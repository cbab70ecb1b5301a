"""The Kullback-Leibler divergence between two distributions, where it has a closed form.

    KL(p || q) = E_p[log p(x) - log q(x)],    at least 0, and 0 only if p = q

Written as plain differences the terms cancel when p is near q, and rounding can then make the result negative. The
forms here are sums of terms none of which is negative, such as exp(t) - 1 - t, as far as there are such forms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygen import ops
from tinygen.distributions.discrete import Bernoulli, Categorical, expected_terms
from tinygen.distributions.distribution import Distribution
from tinygen.distributions.location_scale import EULER, Gumbel, Laplace, Normal
from tinygen.distributions.multivariate import MultivariateNormal, solve_vectors
from tinygen.distributions.uniform import Uniform
from tinygen.errors import InputError

FORMS: dict[type, Callable] = {}


def kl(p: Distribution, q: Distribution) -> Any:
    """KL(p || q) in nats, one number for each event, for two distributions of one family.

    There are forms for Normal, MultivariateNormal, Laplace, Gumbel, Uniform, Bernoulli and Categorical. Infinite where
    p gives probability to what q excludes. Raises InputError for other pairs, or if p and q differ in `event`.
    """
    form = FORMS.get(type(p)) if type(p) is type(q) else None
    if form is None:
        families = ", ".join(family.__name__ for family in FORMS)
        raise InputError(
            f"kl: there is no closed form here for {p!r} and {q!r}, only for two of the same among {families}. Estimate"
            " it as the mean of p.log_prob(x) - q.log_prob(x) over x = p.sample(rng, (n,)), or over p.rsample for a"
            " gradient."
        )
    if p.event != q.event:
        raise InputError(f"kl: {p!r} and {q!r} must have the same number of event axes.")
    p._fitting(p.shape, q.shape)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return p._per_event(form(p, q))


def _form(family: type) -> Callable:
    def register(function: Callable) -> Callable:
        FORMS[family] = function
        return function

    return register


def _excess(t: Any) -> Any:
    """exp(t) - 1 - t >= 0."""
    return ops.expm1(t) - t


@_form(Normal)
def _(p: Normal, q: Normal) -> Any:
    """(s_p^2 / s_q^2 - 1 - log s_p^2 / s_q^2) / 2 + (mu_p - mu_q)^2 / 2 s_q^2"""
    ratio = 2 * (ops.log(p.scale) - ops.log(q.scale))
    return 0.5 * (_excess(ratio) + ops.square((p.loc - q.loc) / q.scale))


@_form(MultivariateNormal)
def _(p: MultivariateNormal, q: MultivariateNormal) -> Any:
    """(|M|^2 - d - 2 log det M + |L_q^-1 (mu_p - mu_q)|^2) / 2 with M = L_q^-1 L_p, whose diagonal is that of L_p over
    that of L_q, so that it adds to |M|^2 - d - 2 log det M what the variances add in one dimension."""
    diagonal = lambda matrix: ops.log(ops.diagonal(matrix, 0, -2, -1))
    ratio = 2 * (diagonal(p.cholesky) - diagonal(q.cholesky))
    off = ops.tril(ops.solve_triangular(q.cholesky, p.cholesky), -1)
    shift = solve_vectors(q.cholesky, p.loc - q.loc)
    return 0.5 * (ops.sum(_excess(ratio) + ops.square(shift), -1) + ops.sum(ops.square(off), (-2, -1)))


@_form(Laplace)
def _(p: Laplace, q: Laplace) -> Any:
    """log s_q / s_p + (s_p / s_q) (d + exp(-d)) - 1 with d = |mu_p - mu_q| / s_p"""
    t = ops.log(p.scale) - ops.log(q.scale)
    return _excess(t) + p.scale / q.scale * _excess(-ops.abs(p.loc - q.loc) / p.scale)


@_form(Gumbel)
def _(p: Gumbel, q: Gumbel) -> Any:
    """-log r + gamma (r - 1) + d + exp(-d) Gamma(1 + r) - 1 with r = s_p / s_q and d = (mu_p - mu_q) / s_q, from
    E[z] = gamma and E[exp(-r z)] = Gamma(1 + r) = r Gamma(r) for a standard Gumbel z."""
    ratio, d = p.scale / q.scale, (p.loc - q.loc) / q.scale
    return _excess(ops.lgamma(1 + ratio) - d) + ops.lgamma(ratio) + EULER * (ratio - 1)


@_form(Uniform)
def _(p: Uniform, q: Uniform) -> Any:
    """log (width_q / width_p), if q reaches as far as p on both sides"""
    covered = ops.logical_and(ops.less_equal(q.low, p.low), ops.less_equal(p.high, q.high))
    return ops.where(covered, ops.log(q.width) - ops.log(p.width), math.inf)


@_form(Bernoulli)
def _(p: Bernoulli, q: Bernoulli) -> Any:
    """The two outcomes, each with its logarithms taken from the logits."""
    surprise = lambda a, b: ops.sigmoid(a) * (ops.log_sigmoid(a) - ops.log_sigmoid(b))
    return surprise(p.logits, q.logits) + surprise(-p.logits, -q.logits)


@_form(Categorical)
def _(p: Categorical, q: Categorical) -> Any:
    """sum_k p_k (log p_k - log q_k)"""
    if p.logits.shape[-1] != q.logits.shape[-1]:
        raise InputError(f"kl: {p.logits.shape[-1]} labels against {q.logits.shape[-1]}; there must be as many.")
    return ops.sum(expected_terms(p.log_probs, p.log_probs - q.log_probs), -1)
