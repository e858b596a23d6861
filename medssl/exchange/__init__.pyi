from .export import Export as Export
from .trained_model import TrainedModel as TrainedModel
from .trained_model import open_trained_model as open_trained_model
