from .api import (
    finetune as finetune,
)
from .api import (
    ingest as ingest,
)
from .api import (
    label_efficiency as label_efficiency,
)
from .api import (
    load_encoder as load_encoder,
)
from .api import (
    pretrain as pretrain,
)
from .cohort.cohort import Cohort as Cohort
from .config import (
    FinetuneConfig as FinetuneConfig,
)
from .config import (
    PretrainConfig as PretrainConfig,
)
from .downstream.evaluation import evaluate as evaluate
from .downstream.prediction import predict as predict
from .encoders.encoder import (
    Decoder as Decoder,
)
from .encoders.encoder import (
    Encoder as Encoder,
)
from .encoders.encoder import (
    EncoderDescription as EncoderDescription,
)
from .encoders.encoder import (
    MonaiTarget as MonaiTarget,
)
from .hookspecs import hookimpl as hookimpl
from .ingestion.settings import IngestSettings as IngestSettings
from .loading.crops import Crop as Crop
from .pretext.collectives import gather as gather
from .pretext.heads import (
    VectorHead as VectorHead,
)
from .pretext.heads import (
    VoxelHead as VoxelHead,
)
from .pretext.heads import (
    pooled as pooled,
)
from .pretext.momentum import Teacher as Teacher
from .pretext.queue import Queue as Queue
from .pretext.task import (
    Field as Field,
)
from .pretext.task import (
    PretextTask as PretextTask,
)
from .pretext.task import (
    Step as Step,
)
from .pretext.task import (
    TaskConfig as TaskConfig,
)
from .randomness import SampleRandom as SampleRandom
from .runs.run import Run as Run
from .views.adapter import PerSample as PerSample
from .views.intensity import IntensityChain as IntensityChain
from .views.masks import block_mask as block_mask
from .views.region import Region as Region

__version__: str
