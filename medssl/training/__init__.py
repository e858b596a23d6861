"""The training loop and what goes with it: pretraining, checkpoints, the collapse watch, dry runs and benchmarks.

Imports diagnostics, pretext and everything below them; knows nothing of MLflow. Names are imported where they are first
used, since the command line imports this package and must not load torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
