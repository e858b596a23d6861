"""Hands a trained model over: safetensors, a MONAI bundle, a checkpoint of nnU-Net.

Imports encoders, runs and what lies below them, and nothing of training. Names are imported where they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
