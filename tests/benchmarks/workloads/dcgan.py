"""5: a DCGAN step: the discriminator's, then the generator's, batch 64 of 28x28, Adam (Radford et al. 2016).

Each of the two draws noise of its own (Goodfellow et al. 2014, algorithm 1). Batch norm learns and keeps its running
statistics.
"""

from workload import Training

from tinygen import nn, no_grad, ops
from tinygen.ops import binary_cross_entropy_with_logits as bce


class Generator(nn.Module):
    """z (N, 64) -> images (N, 28, 28, 1) in (-1, 1)."""

    def __init__(self, rng):
        self.first = nn.Linear(64, 7 * 7 * 128, bias=False, rng=rng)
        self.norm1 = nn.BatchNorm(128)
        self.second = nn.ConvTranspose2d(128, 64, 4, stride=2, padding=1, bias=False, rng=rng)
        self.norm2 = nn.BatchNorm(64)
        self.last = nn.ConvTranspose2d(64, 1, 4, stride=2, padding=1, rng=rng)

    def forward(self, z):
        h = ops.relu(self.norm1(self.first(z).reshape(-1, 7, 7, 128)))
        return ops.tanh(self.last(ops.relu(self.norm2(self.second(h)))))


class Discriminator(nn.Module):
    """Images -> log-odds that they are real, (N, 1)."""

    def __init__(self, rng):
        self.first = nn.Conv2d(1, 64, 4, stride=2, padding=1, rng=rng)
        self.second = nn.Conv2d(64, 128, 4, stride=2, padding=1, bias=False, rng=rng)
        self.norm = nn.BatchNorm(128)
        self.last = nn.Linear(7 * 7 * 128, 1, rng=rng)

    def forward(self, x):
        h = ops.leaky_relu(self.first(x), slope=0.2)
        h = ops.leaky_relu(self.norm(self.second(h)), slope=0.2)
        return self.last(h.reshape(len(x), -1))


class DCGAN(nn.Module):
    def __init__(self, rng):
        self.generator, self.discriminator = Generator(rng), Discriminator(rng)


def batch(rng):
    """Real images, and noise for each of the two."""
    return ops.tanh(rng.normal((64, 28, 28, 1))), rng.normal((64, 64)), rng.normal((64, 64))


def discriminator_in_tinygen(gan, real, z, _):
    with no_grad():
        fake = gan.generator(z)
    return ops.mean(bce(gan.discriminator(real), 1.0)) + ops.mean(bce(gan.discriminator(fake), 0.0))


def generator_in_tinygen(gan, _, __, z):
    return ops.mean(bce(gan.discriminator(gan.generator(z)), 1.0))


def generate_in_torch(p, z):
    h = p.linear("generator.first", z).unflatten(1, (7, 7, 128)).movedim(-1, 1)
    h = p.conv_transpose("generator.second", p.f.relu(p.batch_norm("generator.norm1", h)), stride=2, padding=1)
    h = p.conv_transpose("generator.last", p.f.relu(p.batch_norm("generator.norm2", h)), stride=2, padding=1)
    return p.torch.tanh(h)


def judge_in_torch(p, x):
    h = p.f.leaky_relu(p.conv("discriminator.first", x, stride=2, padding=1), 0.2)
    h = p.batch_norm("discriminator.norm", p.conv("discriminator.second", h, stride=2, padding=1))
    return p.linear("discriminator.last", p.f.leaky_relu(h, 0.2).movedim(1, -1).flatten(1))


def cross_entropy_in_torch(p, logits, target):
    return p.f.binary_cross_entropy_with_logits(logits, p.torch.full_like(logits, target))


def discriminator_in_torch(p, real, z, _):
    with p.torch.no_grad():
        fake = generate_in_torch(p, z)
    loss = cross_entropy_in_torch(p, judge_in_torch(p, real), 1.0)
    return loss + cross_entropy_in_torch(p, judge_in_torch(p, fake), 0.0)


def generator_in_torch(p, _, __, z):
    return cross_entropy_in_torch(p, judge_in_torch(p, generate_in_torch(p, z)), 1.0)


def generate_in_jax(p, z):
    relu = p.jax.nn.relu
    h = relu(p.batch_norm("generator.norm1", p.linear("generator.first", z).reshape(-1, 7, 7, 128)))
    h = relu(p.batch_norm("generator.norm2", p.conv_transpose("generator.second", h, stride=2, padding=1)))
    return p.jnp.tanh(p.conv_transpose("generator.last", h, stride=2, padding=1))


def judge_in_jax(p, x):
    leaky = lambda x: p.jax.nn.leaky_relu(x, 0.2)
    h = leaky(p.conv("discriminator.first", x, stride=2, padding=1))
    h = leaky(p.batch_norm("discriminator.norm", p.conv("discriminator.second", h, stride=2, padding=1)))
    return p.linear("discriminator.last", h.reshape(len(x), -1))


def discriminator_in_jax(p, real, z, _):
    softplus = p.jax.nn.softplus
    fake = p.jax.lax.stop_gradient(generate_in_jax(p, z))
    return softplus(-judge_in_jax(p, real)).mean() + softplus(judge_in_jax(p, fake)).mean()


def generator_in_jax(p, _, __, z):
    return p.jax.nn.softplus(-judge_in_jax(p, generate_in_jax(p, z))).mean()


WORKLOAD = Training(
    "DCGAN",
    DCGAN,
    batch,
    {"discriminator": discriminator_in_tinygen, "generator": generator_in_tinygen},
    {"discriminator": discriminator_in_torch, "generator": generator_in_torch},
    {"discriminator": discriminator_in_jax, "generator": generator_in_jax},
    lr=5e-5,  # at the 2e-4 of the paper the two networks drive rounding errors apart within 20 steps
    betas=(0.5, 0.999),
    channels_last=True,
)
