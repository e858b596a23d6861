"""medssl: from a scan archive to label-efficient segmentation.

Its functions are the steps: `ingest`, `pretrain`, `finetune`, `label_efficiency`, `predict`, `evaluate`. Beside them
stands what a plugin is written with. `__init__.pyi` lists all names. Each is imported when it is first used, so that
`import medssl` loads no torch.
"""

import sys

import lazy_loader

if sys.platform == "win32":
    raise ImportError("medssl does not run on Windows, which lacks fcntl and resource. Use WSL 2 or a Linux machine.")

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
