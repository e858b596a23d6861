"""Uses of a pretrained encoder: fine-tuning, prediction, evaluation, label efficiency, scan energies and vectors.

May import everything below it (training, ingestion and what they import), but neither tracking nor exchange.
`comparison`, `dice` and `intervals` hold results and load no torch; the names below load it where they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
