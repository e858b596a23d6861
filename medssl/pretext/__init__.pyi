from .clustering import (
    Prototypes as Prototypes,
)
from .clustering import (
    balanced_codes as balanced_codes,
)
from .clustering import (
    sinkhorn as sinkhorn,
)
from .distillation import Centre as Centre
from .gradient_cache import backward_in_chunks as backward_in_chunks
from .heads import (
    LatentDecoder as LatentDecoder,
)
from .heads import (
    VectorHead as VectorHead,
)
from .heads import (
    VoxelHead as VoxelHead,
)
from .heads import (
    pooled as pooled,
)
from .moments import RunningMoments as RunningMoments
from .momentum import (
    Teacher as Teacher,
)
from .momentum import (
    momentum_at as momentum_at,
)
from .pairs import (
    MultiCropConfig as MultiCropConfig,
)
from .pairs import (
    PairConfig as PairConfig,
)
from .pairs import (
    PairGeometry as PairGeometry,
)
from .patches import (
    PatchConfig as PatchConfig,
)
from .patches import (
    PatchGeometry as PatchGeometry,
)
from .projection import (
    BatchNorm as BatchNorm,
)
from .projection import (
    Projection as Projection,
)
from .queue import Queue as Queue
from .reconstruction import (
    scored_mean as scored_mean,
)
from .reconstruction import (
    valid_fraction as valid_fraction,
)
from .sparse import DropsTokens as DropsTokens
from .task import (
    Compares as Compares,
)
from .task import (
    PretextTask as PretextTask,
)
from .task import (
    Step as Step,
)
from .task import (
    TaskConfig as TaskConfig,
)
from .task import (
    ViewsConfig as ViewsConfig,
)
