"""Where everything lies in a run folder."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunPaths:
    """Names of the files below a run folder; a folder of exported weights has the same names for what it holds.

    Attributes:
        folder: The run folder.
    """

    folder: Path

    @property
    def record(self) -> Path:
        """What the run is and how it stands (`RunRecord`); a folder is a run once this is there."""
        return self.folder / "run.json"

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.folder / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON line per logging step."""
        return self.folder / "metrics.jsonl"

    @property
    def log(self) -> Path:
        """What was said during the training."""
        return self.folder / "log.txt"

    @property
    def pictures(self) -> Path:
        """Folder of <key>/<step>.png."""
        return self.folder / "pictures"

    @property
    def checkpoints(self) -> Path:
        """Folder of the training state."""
        return self.folder / "checkpoints"

    @property
    def checkpoint(self) -> Path:
        """The training state from which `--resume` goes on."""
        return self.checkpoints / "last.ckpt"

    def candidate(self, step: int) -> Path:
        """Folder of the encoder after `step` steps, where one is chosen at the end; it has files as a run has them."""
        return self.checkpoints / f"candidate-{step:07d}"

    @property
    def encoder_weights(self) -> Path:
        """What outlives pretraining."""
        return self.folder / "encoder.safetensors"

    @property
    def encoder_record(self) -> Path:
        """The architecture of `encoder_weights`, the digests of its tensors, and how they came about."""
        return self.folder / "encoder.json"

    @property
    def decoder_weights(self) -> Path:
        """Present where the pretext task trained a decoder."""
        return self.folder / "decoder.safetensors"

    @property
    def model_weights(self) -> Path:
        """What outlives fine-tuning."""
        return self.folder / "model.safetensors"

    @property
    def model_record(self) -> Path:
        """The architecture and the preprocessing that belong to `model_weights`."""
        return self.folder / "model.json"
