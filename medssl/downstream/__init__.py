"""Uses of a pretrained encoder: fine-tuning, prediction, evaluation, label efficiency, scan energies and vectors.

May import everything below it (training, ingestion and what they import), but neither tracking nor exchange.
`comparison`, `dice` and `intervals` hold results and load no torch; the names below load it where they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

_MODULES = {
    "Comparison": "comparison",
    "Evaluation": "dice",
    "FinetunedModel": "finetuning",
    "Prediction": "prediction",
    "embed_scans": "embed",
    "evaluate": "evaluation",
    "finetune": "finetuning",
    "label_efficiency": "sweep",
    "predict": "prediction",
    "score_scans": "score",
}

if TYPE_CHECKING:
    from medssl.downstream.comparison import Comparison
    from medssl.downstream.dice import Evaluation
    from medssl.downstream.embed import embed_scans
    from medssl.downstream.evaluation import evaluate
    from medssl.downstream.finetuning import FinetunedModel, finetune
    from medssl.downstream.prediction import Prediction, predict
    from medssl.downstream.score import score_scans
    from medssl.downstream.sweep import label_efficiency

__all__ = [
    "Comparison",
    "Evaluation",
    "FinetunedModel",
    "Prediction",
    "embed_scans",
    "evaluate",
    "finetune",
    "label_efficiency",
    "predict",
    "score_scans",
]


def __getattr__(name: str) -> Any:
    """PEP 562: import a public name where it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'medssl.downstream' has no attribute '{name}'")
    return getattr(importlib.import_module(f"medssl.downstream.{_MODULES[name]}"), name)
