"""Is the encoder learning? Measures of features and energies, the collapse verdict, the linear probe.

Imports pretext, encoders and errors. Names are imported where they are first used, since all of them load torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
