"""Action denoisers and what is needed to train and serve them.

The training and timing core: importing it needs torch, numpy, einops and safetensors alone.
"""

from .anchored import AnchoredDecoder
from .checkpoint import NETWORKS, Checkpoint, load_checkpoint, read_config, save_checkpoint
from .chunk_policy import DiffusionPolicy
from .config import AnchoredConfig, ChunkConfig, TransformerConfig
from .network import ActionNetwork
from .normaliser import Normaliser
from .serving import serve
from .streaming import StreamingTransformer
from .training import TrainingConfig, train
from .transformer import TransformerForDiffusion

__all__ = [
    "NETWORKS",
    "ActionNetwork",
    "AnchoredConfig",
    "AnchoredDecoder",
    "Checkpoint",
    "ChunkConfig",
    "DiffusionPolicy",
    "Normaliser",
    "StreamingTransformer",
    "TrainingConfig",
    "TransformerConfig",
    "TransformerForDiffusion",
    "load_checkpoint",
    "read_config",
    "save_checkpoint",
    "serve",
    "train",
]
