from .adapter import PerSample as PerSample
from .artefacts import (
    BatchRandBiasField as BatchRandBiasField,
)
from .artefacts import (
    BatchRandGaussianNoise as BatchRandGaussianNoise,
)
from .artefacts import (
    BatchRandGaussianSmooth as BatchRandGaussianSmooth,
)
from .artefacts import (
    BatchRandGibbsNoise as BatchRandGibbsNoise,
)
from .artefacts import (
    BatchRandRicianNoise as BatchRandRicianNoise,
)
from .artefacts import (
    BatchRandSimulateLowResolution as BatchRandSimulateLowResolution,
)
from .batch import (
    BatchCompose as BatchCompose,
)
from .batch import (
    BatchTransform as BatchTransform,
)
from .batch import (
    LogUniform as LogUniform,
)
from .brightness import (
    BatchRandAdjustContrast as BatchRandAdjustContrast,
)
from .brightness import (
    BatchRandHistogramShift as BatchRandHistogramShift,
)
from .brightness import (
    BatchRandScaleIntensity as BatchRandScaleIntensity,
)
from .brightness import (
    BatchRandScaleIntensityFixedMean as BatchRandScaleIntensityFixedMean,
)
from .brightness import (
    BatchRandShiftIntensity as BatchRandShiftIntensity,
)
from .brightness import (
    BatchRandWindow as BatchRandWindow,
)
from .intensity import IntensityChain as IntensityChain
from .masks import (
    block_mask as block_mask,
)
from .masks import (
    token_mask as token_mask,
)
from .region import Region as Region
from .spatial import BatchRandAffine as BatchRandAffine
