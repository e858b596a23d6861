"""The run folder, which is the truth about one training: training writes it, everything else reads it.

Imports files, errors and config, and no torch: commands list runs. Names are imported where they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
