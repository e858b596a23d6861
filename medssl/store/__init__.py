"""Voxels on disk, and nothing else: scans written once on the store's grid and read box by box.

Imports geometry, shapes, files and errors, and no torch: data workers import this package. Names are imported where
they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
