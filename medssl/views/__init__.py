"""Batched transforms on the device, and the region that a task cuts its views from.

The transforms are MONAI transforms (`RandomizableTransform`, `set_random_state`) under MONAI's names and parameters
with `Batch` before them: one call for a batch (B, C, D, H, W), each sample with its own parameters, and MONAI's results
at batch size 1. Random numbers come from the `SampleRandom` of a region: they belong to the sample, not to the order of
calls. Nothing the size of a volume leaves the device, and nothing is written to the input.

Imports loading, randomness and geometry. Names are imported where they are first used: monai takes seconds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
