"""Model families, one file each: the objective and the sampler, over any network."""

from tinygen.models.autoregressive import FVSBN, MADE, NADE
from tinygen.models.bernoulli_mixture import BernoulliMixture
from tinygen.models.chow_liu import ChowLiuTree
from tinygen.models.cnf import CNF
from tinygen.models.ddpm import DDPM, Schedule
from tinygen.models.ebm import EBM
from tinygen.models.flow import Composition, Flow
from tinygen.models.gaussian_mixture import GMM
from tinygen.models.glow import Glow
from tinygen.models.inverse_cdf import QuantileMap
from tinygen.models.maf import IAF, MAF
from tinygen.models.multiscale_flow import MultiscaleFlow
from tinygen.models.naive_bayes import ClassConditional, NaiveBayes, ProductOfBernoullis
from tinygen.models.pixel_transformer import PixelTransformer
from tinygen.models.pixelcnn import PixelCNN
from tinygen.models.rbm import RBM
from tinygen.models.realnvp import RealNVP
from tinygen.models.spline import SplineFlow
from tinygen.models.vae import VAE

__all__ = [
    "CNF",
    "DDPM",
    "EBM",
    "FVSBN",
    "GMM",
    "IAF",
    "MADE",
    "MAF",
    "NADE",
    "RBM",
    "VAE",
    "BernoulliMixture",
    "ChowLiuTree",
    "ClassConditional",
    "Composition",
    "Flow",
    "Glow",
    "MultiscaleFlow",
    "NaiveBayes",
    "PixelCNN",
    "PixelTransformer",
    "ProductOfBernoullis",
    "QuantileMap",
    "RealNVP",
    "Schedule",
    "SplineFlow",
]
