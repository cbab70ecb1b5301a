"""10: 64 sequences of 64 tokens with the network of workload 4, token by token, with its cache of keys and values.

A token is drawn as argmax(logits + G), with G from the Gumbel distribution: token i comes out with probability
softmax(logits)_i, and the same noise gives the same tokens in every library.
"""

import numpy as np
from workload import Sampling, stirred
from workloads import gpt

from tinygen import no_grad

SEQUENCES, TOKENS, LAYERS, HEADS, FEATURES = 64, 64, 4, 4, 32


def model(rng):
    return stirred(gpt.model(rng), rng)


def noise(rng):
    return (-np.log(-np.log(rng.uniform((TOKENS, SEQUENCES, 128), 1e-6, 1 - 1e-6))),)


def in_tinygen(net, gumbel):
    token, drawn, cache = np.zeros((SEQUENCES, 1), int), [], net.new_cache()
    with no_grad():
        for t in range(TOKENS):
            logits = net(token, cache=cache).numpy()[:, -1]
            token = np.argmax(logits + gumbel[t], axis=-1)[:, None]
            drawn.append(token)
    return np.concatenate(drawn, axis=1)


def in_torch(p, gumbel):
    torch, f = p.torch, p.f
    token, drawn = torch.zeros(SEQUENCES, dtype=torch.long), []
    keys, values = torch.empty(2, LAYERS, SEQUENCES, HEADS, TOKENS, FEATURES).unbind()
    for t in range(TOKENS):
        h = f.embedding(token, p["token.weight"]) + p["position.weight"][t]
        for i in range(LAYERS):
            name = f"blocks.{i}"
            qkv = p.linear(f"{name}.attention.qkv", p.layer_norm(f"{name}.norm1", h))
            q, keys[i, :, :, t], values[i, :, :, t] = qkv.unflatten(-1, (3, HEADS, FEATURES)).unbind(1)
            now = f.scaled_dot_product_attention(q[:, :, None], keys[i, :, :, : t + 1], values[i, :, :, : t + 1])
            h = h + p.linear(f"{name}.attention.output", now.flatten(1))
            h = h + p.mlp(f"{name}.mlp.", 2, p.layer_norm(f"{name}.norm3", h), "gelu")
        token = (p.linear("last", p.layer_norm("norm", h)) + gumbel[t]).argmax(-1)
        drawn.append(token)
    return torch.stack(drawn, 1)


def in_jax(p, gumbel):
    jax, jnp = p.jax, p.jnp
    gelu = lambda x: jax.nn.gelu(x, approximate=False)

    def step(state, now):
        (token, keys, values), (t, g) = state, now
        h = p["token.weight"][token] + p["position.weight"][t]
        for i in range(LAYERS):
            name = f"blocks.{i}"
            qkv = p.linear(f"{name}.attention.qkv", p.layer_norm(f"{name}.norm1", h))
            q, k, v = jnp.moveaxis(qkv.reshape(SEQUENCES, 3, HEADS, FEATURES), 1, 0)
            keys, values = keys.at[i, :, t].set(k), values.at[i, :, t].set(v)
            seen = (jnp.arange(TOKENS) <= t)[None, None, None]
            now = jax.nn.dot_product_attention(q[:, None], keys[i], values[i], mask=seen)
            h = h + p.linear(f"{name}.attention.output", now.reshape(SEQUENCES, -1))
            h = h + p.linear(f"{name}.mlp.2", gelu(p.linear(f"{name}.mlp.0", p.layer_norm(f"{name}.norm3", h))))
        token = (p.linear("last", p.layer_norm("norm", h)) + g).argmax(-1)
        return (token, keys, values), token

    cache = jnp.zeros((2, LAYERS, SEQUENCES, TOKENS, HEADS, FEATURES))
    _, drawn = jax.lax.scan(step, (jnp.zeros(SEQUENCES, int), *cache), (jnp.arange(TOKENS), gumbel))
    return drawn.T


WORKLOAD = Sampling("sampling: GPT, 64 tokens", model, noise, in_tinygen, in_torch, in_jax)
