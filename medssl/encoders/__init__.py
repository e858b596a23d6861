"""Backbones behind one small interface, and their weights in and out of files.

`architectures` has the encoders that ship, one file each. Imports runs (for the names of files), config, plugins and
what lies below. Names are imported where they are first used: `medssl --help` lists encoders without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
