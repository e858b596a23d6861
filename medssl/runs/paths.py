"""Where everything lies in a run folder."""

from pathlib import Path


class RunPaths:
    """Names of the files below a run folder; a folder of exported weights has the same names for what it holds.

    Attributes:
        folder: The run folder.
        record: What the run is and how it stands (`RunRecord`); a folder is a run once this is there.
        config: The resolved settings.
        metrics: One JSON line per logging step.
        log: What was said during the training.
        pictures: Folder of <key>/<step>.png.
        checkpoints: Folder of the training state.
        checkpoint: The training state from which `--resume` goes on.
        encoder_weights: What outlives pretraining.
        encoder_record: The architecture of `encoder_weights`, the digests of its tensors, and how they came about.
        decoder_weights: Present where the pretext task trained a decoder.
        model_weights: What outlives fine-tuning.
        model_record: The architecture and the preprocessing that belong to `model_weights`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = folder / "run.json"
        self.config = folder / "config.yaml"
        self.metrics = folder / "metrics.jsonl"
        self.log = folder / "log.txt"
        self.pictures = folder / "pictures"
        self.checkpoints = folder / "checkpoints"
        self.checkpoint = self.checkpoints / "last.ckpt"
        self.encoder_weights = folder / "encoder.safetensors"
        self.encoder_record = folder / "encoder.json"
        self.decoder_weights = folder / "decoder.safetensors"
        self.model_weights = folder / "model.safetensors"
        self.model_record = folder / "model.json"

    def candidate(self, step: int) -> Path:
        """Folder of the encoder after `step` steps, where one is chosen at the end; it has files as a run has them."""
        return self.checkpoints / f"candidate-{step:07d}"
