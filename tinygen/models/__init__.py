"""Model families, one file each: the objective and the sampler, over any network."""

from tinygen.models.ddpm import DDPM, Schedule
from tinygen.models.vae import VAE

__all__ = ["DDPM", "VAE", "Schedule"]
