from .crops import Crop as Crop
from .crops import Sample as Sample
from .loader import RegionBatch as RegionBatch
from .loader import RegionLoader as RegionLoader
from .loader import batch_at as batch_at
from .plan import BatchPlan as BatchPlan
from .scan_weights import scan_weights as scan_weights
