from .cohort import Cohort as Cohort
from .difference import (
    ManifestDifference as ManifestDifference,
)
from .difference import (
    compare_manifests as compare_manifests,
)
from .manifest import (
    ManifestRow as ManifestRow,
)
from .manifest import (
    read_manifest as read_manifest,
)
from .manifest import (
    write_manifest as write_manifest,
)
from .reasons import (
    Flag as Flag,
)
from .reasons import (
    Reason as Reason,
)
from .summary import (
    CohortSummary as CohortSummary,
)
from .summary import (
    summarise as summarise,
)
