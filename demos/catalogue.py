"""Which demos there are. A demo is a file of this folder that declares itself:

    DEMO = Demo(number=20, data="8 Gaussians", minutes=1, steps=6000, quick_steps=40)

    def main(run: Run) -> None: ...

The list is read from the source text, so that showing it neither imports nor runs anything.
"""

import ast
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinygen.errors import InputError


@dataclass(frozen=True)
class Demo:
    """What is known of a demo before it runs.

    number:      its place in the learning path
    data:        what it trains on, in words
    minutes:     what it takes on two CPU cores
    steps:       training steps of a full run
    quick_steps: training steps under --quick
    datasets:    the names that --data takes, the default first; none if there is nothing to choose
    picture:     which of its pictures stands for it in the learning path
    """

    number: int
    data: str
    minutes: float
    steps: int
    quick_steps: int
    datasets: tuple[str, ...] = ()
    picture: str = "samples.png"


@dataclass(frozen=True)
class Entry:
    """A demo in the catalogue: `idea` is the first line of its file."""

    name: str
    idea: str
    demo: Demo
    path: Path

    def load(self) -> Callable:
        """Imports the file; its `main`."""
        spec = importlib.util.spec_from_file_location(f"demos.{self.name}", self.path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module.main


def catalogue(folder: Path) -> list[Entry]:
    """The demos of a folder, in the order of their numbers. Raises InputError for a file that does not parse."""
    entries = [_entry(path) for path in sorted(folder.glob("*.py"))]
    return sorted((entry for entry in entries if entry), key=lambda entry: entry.demo.number)


def _entry(path: Path) -> Entry | None:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:
        raise InputError(f"{path.name}, line {error.lineno}: {error.msg}. Mend the file, then list again.") from error
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DEMO":
            idea = (ast.get_docstring(tree) or "no description").splitlines()[0]
            return Entry(path.stem, idea, _declaration(node.value, path), path)
    return None


def _declaration(call: ast.expr, path: Path) -> Demo:
    try:
        return Demo(**{keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords})
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{path.name}, line {call.lineno}: DEMO must be Demo(...) with literal keyword arguments ({error})."
        ) from error


PLANNED = {  # the rest of the learning path: number, name and idea of what is not there yet
    10: ("autoencoder", "Reconstruction, and why sampling it fails"),
    12: ("hvae", "Several stochastic layers: the bridge to diffusion"),
    13: ("vqvae", "Codebooks and the straight-through gradient"),
    14: ("vqgan", "Adversarial and perceptual losses, a prior over codes"),
    15: ("gan_modes", "GANs and mode collapse; WGAN-GP, spectral norm"),
    16: ("gan_digits", "DCGAN and WGAN-GP on digits"),
    17: ("denoising_ladder", "From denoising autoencoders to diffusion, step by step"),
    18: ("score_matching", "Explicit, sliced and denoising score matching"),
    19: ("sde", "Diffusion in continuous time, its ODE and likelihood"),
    21: ("samplers", "DDIM, Heun, DPM-Solver: error against evaluations"),
    22: ("flow_matching", "Conditional flow matching, optimal transport, rectified flow"),
    23: ("ddpm_digits", "Diffusion with a U-Net"),
    24: ("guidance", "Classifier guidance, classifier-free guidance"),
    25: ("composition", "AND and NOT of conditions"),
    26: ("latent_diffusion", "Diffusion in the latent space of a VAE and a VQ-VAE"),
    27: ("textual_inversion", "A new condition from five images"),
    28: ("dreambooth", "Fine-tuning on a subject with prior preservation"),
    29: ("editing", "SDEdit, inpainting, interpolation"),
    30: ("leaderboard", "Every model on the same digits in one table"),
}
