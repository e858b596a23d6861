"""From an archive to a cohort, to NIfTI files, or to an explanation of what became of a file.

The only package that imports both `medssl.archive` and `medssl.store`; it loads no torch. Names are imported where they
are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
