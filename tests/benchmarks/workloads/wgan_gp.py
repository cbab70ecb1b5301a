"""6: a critic of two convolutions on (64, 28, 28, 1) with the gradient penalty, hence with second derivatives, Adam
(Gulrajani et al. 2017, algorithm 1).

    E[f(fake)] - E[f(real)] + 10 E[(|df / dx| - 1)^2],    x between the two
"""

from workload import Training

from tinygen import grad, nn, ops, tensor


class Critic(nn.Module):
    def __init__(self, rng):
        self.first = nn.Conv2d(1, 64, 4, stride=2, padding=1, rng=rng)
        self.second = nn.Conv2d(64, 128, 4, stride=2, padding=1, rng=rng)
        self.last = nn.Linear(7 * 7 * 128, 1, rng=rng)

    def forward(self, x):
        h = ops.leaky_relu(self.second(ops.leaky_relu(self.first(x), slope=0.2)), slope=0.2)
        return self.last(h.reshape(len(x), -1))


def batch(rng):
    """Real and generated images, and where between them the slope is measured."""
    return rng.normal((64, 28, 28, 1)), rng.normal((64, 28, 28, 1)), rng.uniform((64, 1, 1, 1))


def in_tinygen(critic, real, fake, u):
    x = tensor(u * real + (1 - u) * fake, requires_grad=True)
    slope = grad(critic(x).sum(), x, create_graph=True)
    norm = ops.sqrt(ops.square(slope).sum((1, 2, 3)) + 1e-12)
    return ops.mean(critic(fake)) - ops.mean(critic(real)) + 10 * ops.mean(ops.square(norm - 1))


def in_torch(p, real, fake, u):
    torch, f = p.torch, p.f

    def critic(x):
        h = f.leaky_relu(p.conv("first", x, stride=2, padding=1), 0.2)
        h = f.leaky_relu(p.conv("second", h, stride=2, padding=1), 0.2)
        return p.linear("last", h.movedim(1, -1).flatten(1))

    x = (u * real + (1 - u) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    norm = torch.sqrt(slope.square().sum((1, 2, 3)) + 1e-12)
    return critic(fake).mean() - critic(real).mean() + 10 * (norm - 1).square().mean()


def in_jax(p, real, fake, u):
    jax, jnp = p.jax, p.jnp

    def critic(x):
        h = jax.nn.leaky_relu(p.conv("first", x, stride=2, padding=1), 0.2)
        h = jax.nn.leaky_relu(p.conv("second", h, stride=2, padding=1), 0.2)
        return p.linear("last", h.reshape(len(x), -1))

    slope = jax.grad(lambda x: critic(x).sum())(u * real + (1 - u) * fake)
    norm = jnp.sqrt(jnp.square(slope).sum((1, 2, 3)) + 1e-12)
    return critic(fake).mean() - critic(real).mean() + 10 * jnp.square(norm - 1).mean()


WORKLOAD = Training("WGAN-GP critic", Critic, batch, in_tinygen, in_torch, in_jax, lr=1e-4)
