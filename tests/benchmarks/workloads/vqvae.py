"""9: VQ-VAE on (64, 28, 28, 1): 7x7 places, each the nearest of 512 codes of width 64, Adam (van den Oord et al. 2017).

    L = E (x - decoder(q))^2 + E (sg(z) - q)^2 + .25 E (z - sg(q))^2,    z = encoder(x), q the code nearest to z   eq. 3

sg stops the gradient; that of q is handed to z as it is ("straight through").
"""

from workload import Training

from tinygen import nn, no_grad, ops, stop_gradient

CODES, WIDTH = 512, 64


class VQVAE(nn.Module):
    def __init__(self, rng):
        self.encoder = nn.Sequential(
            nn.Conv2d(1, WIDTH, 4, stride=2, padding=1, rng=rng),
            ops.relu,
            nn.Conv2d(WIDTH, WIDTH, 4, stride=2, padding=1, rng=rng),
            ops.relu,
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, rng=rng),
        )
        self.codebook = nn.Parameter(rng.normal((CODES, WIDTH)))
        self.decoder = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1, rng=rng),
            ops.relu,
            nn.ConvTranspose2d(WIDTH, WIDTH, 4, stride=2, padding=1, rng=rng),
            ops.relu,
            nn.ConvTranspose2d(WIDTH, 1, 4, stride=2, padding=1, rng=rng),
        )


def batch(rng):
    return (rng.normal((64, 28, 28, 1)),)


def in_tinygen(model, x):
    z, e = model.encoder(x), model.codebook
    with no_grad():  # |z - e|^2 without |z|^2, which is the same for all codes
        distance = ops.square(e).sum(-1) - 2 * (z @ ops.transpose(e))
    q = ops.embedding(e, ops.argmin(distance, axis=-1))
    y = model.decoder(z + stop_gradient(q - z))
    gap = lambda a, b: ops.mean(ops.square(a - b))
    return gap(y, x) + gap(stop_gradient(z), q) + 0.25 * gap(z, stop_gradient(q))


def in_torch(p, x):
    torch, f = p.torch, p.f
    h = f.relu(p.conv("encoder.0", x, stride=2, padding=1))
    h = f.relu(p.conv("encoder.2", h, stride=2, padding=1))
    z, e = p.conv("encoder.4", h, padding=1).movedim(1, -1), p["codebook"]
    with torch.no_grad():
        distance = e.square().sum(-1) - 2 * (z @ e.T)
    q = f.embedding(distance.argmin(-1), e)
    h = f.relu(p.conv("decoder.0", (z + (q - z).detach()).movedim(-1, 1), padding=1))
    h = f.relu(p.conv_transpose("decoder.2", h, stride=2, padding=1))
    y = p.conv_transpose("decoder.4", h, stride=2, padding=1)
    return f.mse_loss(y, x) + f.mse_loss(q, z.detach()) + 0.25 * f.mse_loss(z, q.detach())


def in_jax(p, x):
    jnp, relu, stop = p.jnp, p.jax.nn.relu, p.jax.lax.stop_gradient
    h = relu(p.conv("encoder.0", x, stride=2, padding=1))
    h = relu(p.conv("encoder.2", h, stride=2, padding=1))
    z, e = p.conv("encoder.4", h, padding=1), p["codebook"]
    q = e[stop(jnp.square(e).sum(-1) - 2 * (z @ e.T)).argmin(-1)]
    h = relu(p.conv("decoder.0", z + stop(q - z), padding=1))
    h = relu(p.conv_transpose("decoder.2", h, stride=2, padding=1))
    y = p.conv_transpose("decoder.4", h, stride=2, padding=1)
    gap = lambda a, b: jnp.mean(jnp.square(a - b))
    return gap(y, x) + gap(stop(z), q) + 0.25 * gap(z, stop(q))


WORKLOAD = Training("VQ-VAE", VQVAE, batch, in_tinygen, in_torch, in_jax, lr=2e-4, channels_last=True)
