"""What training reads: the batch plan, the crops of a sample, the loader and its worker processes.

Imports store, cohort, config and randomness. Names are imported where they are first used, since a worker process
imports this package and must not load torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
