"""What an ingest leaves behind and training starts from: the manifest, its codes, and the cohort that holds both.

Imports errors, files and randomness only, and neither torch nor pyarrow. Names are imported where they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
