"""Model families, one file each: the objective and the sampler, over any network."""

from tinygen.models.ddpm import DDPM, Schedule
from tinygen.models.pixel_transformer import PixelTransformer
from tinygen.models.pixelcnn import PixelCNN
from tinygen.models.vae import VAE

__all__ = ["DDPM", "VAE", "PixelCNN", "PixelTransformer", "Schedule"]
