"""Model families, one file each: the objective and the sampler, over any network."""

from tinygen.models.ddpm import DDPM, Schedule

__all__ = ["DDPM", "Schedule"]
