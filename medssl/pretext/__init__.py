"""What a pretext task is, and the parts that tasks share: heads, teachers, queues, losses, geometry, masking.

Imports encoders, views and loading, and nothing that trains. The names below are imported when they are first used:
a task needs few of them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
