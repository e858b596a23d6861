from .features import (
    Features as Features,
)
from .features import (
    extract_features as extract_features,
)
from .monitor import (
    CollapseMonitor as CollapseMonitor,
)
from .monitor import (
    Diagnosis as Diagnosis,
)
from .probe import (
    LinearProbe as LinearProbe,
)
from .probe import (
    ProbeScore as ProbeScore,
)
from .probe import (
    probe_segmentation as probe_segmentation,
)
from .selection import (
    Candidate as Candidate,
)
from .selection import (
    choose_checkpoint as choose_checkpoint,
)
from .verdict import (
    Verdict as Verdict,
)
from .verdict import (
    judge as judge,
)
