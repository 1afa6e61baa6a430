"""Action denoisers and what is needed to train and serve them.

The training and timing core: importing it needs torch, numpy, einops and safetensors alone.
"""

from .checkpoint import Checkpoint, load_checkpoint, read_config, save_checkpoint
from .chunk_policy import DiffusionPolicy
from .config import TransformerConfig
from .normaliser import Normaliser
from .training import TrainingConfig, train
from .transformer import TransformerForDiffusion

__all__ = [
    "Checkpoint",
    "DiffusionPolicy",
    "Normaliser",
    "TrainingConfig",
    "TransformerConfig",
    "TransformerForDiffusion",
    "load_checkpoint",
    "read_config",
    "save_checkpoint",
    "train",
]
