from .comparison import Comparison as Comparison
from .dice import Evaluation as Evaluation
from .embed import embed_scans as embed_scans
from .evaluation import evaluate as evaluate
from .finetuning import (
    FinetunedModel as FinetunedModel,
)
from .finetuning import (
    finetune as finetune,
)
from .prediction import (
    Prediction as Prediction,
)
from .prediction import (
    predict as predict,
)
from .score import score_scans as score_scans
from .sweep import label_efficiency as label_efficiency
