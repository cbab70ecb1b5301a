"""4: `nn.GPT` with 4 layers, width 128, 4 heads, 64 tokens, vocabulary 128, batch 64, AdamW (Radford et al. 2019)."""

from workload import Training

from tinygen import nn, ops


def model(rng):
    return nn.GPT(128, 64, width=128, heads=4, layers=4, rng=rng)


def batch(rng):
    """Tokens, and the tokens that follow them."""
    return rng.integers(128, (64, 64)), rng.integers(128, (64, 64))


def in_tinygen(net, x, y):
    return ops.mean(ops.cross_entropy(net(x), y))


def in_torch(p, x, y):
    h = p.f.embedding(x, p["token.weight"]) + p["position.weight"]
    for i in range(4):
        name = f"blocks.{i}"
        h = h + p.attention(f"{name}.attention", p.layer_norm(f"{name}.norm1", h), heads=4, causal=True)
        h = h + p.mlp(f"{name}.mlp.", 2, p.layer_norm(f"{name}.norm3", h), "gelu")
    logits = p.linear("last", p.layer_norm("norm", h))
    return p.f.cross_entropy(logits.flatten(0, 1), y.flatten())


def in_jax(p, x, y):
    jax, jnp = p.jax, p.jnp
    gelu = lambda x: jax.nn.gelu(x, approximate=False)
    h = p["token.weight"][x] + p["position.weight"]
    for i in range(4):
        name = f"blocks.{i}"
        h = h + p.attention(f"{name}.attention", p.layer_norm(f"{name}.norm1", h), heads=4, causal=True)
        h = h + p.linear(f"{name}.mlp.2", gelu(p.linear(f"{name}.mlp.0", p.layer_norm(f"{name}.norm3", h))))
    logits = p.linear("last", p.layer_norm("norm", h))
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[..., None], -1).mean()


WORKLOAD = Training("GPT", model, batch, in_tinygen, in_torch, in_jax, optimiser="AdamW", lr=3e-4)
