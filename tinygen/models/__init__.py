"""Model families, one file each: the objective and the sampler, over any network."""

from tinygen.models.autoregressive import FVSBN, MADE, NADE
from tinygen.models.bernoulli_mixture import BernoulliMixture
from tinygen.models.chow_liu import ChowLiuTree
from tinygen.models.ddpm import DDPM, Schedule
from tinygen.models.gaussian_mixture import GMM
from tinygen.models.inverse_cdf import QuantileMap
from tinygen.models.naive_bayes import ClassConditional, NaiveBayes, ProductOfBernoullis
from tinygen.models.pixel_transformer import PixelTransformer
from tinygen.models.pixelcnn import PixelCNN
from tinygen.models.rbm import RBM
from tinygen.models.vae import VAE

__all__ = [
    "DDPM",
    "GMM",
    "FVSBN",
    "MADE",
    "NADE",
    "RBM",
    "VAE",
    "BernoulliMixture",
    "ChowLiuTree",
    "ClassConditional",
    "NaiveBayes",
    "PixelCNN",
    "PixelTransformer",
    "ProductOfBernoullis",
    "QuantileMap",
    "Schedule",
]
