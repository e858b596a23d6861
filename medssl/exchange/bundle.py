"""A run as a MONAI bundle: configs, weights under MONAI's own keys, and the one script that they need."""

import shutil
from pathlib import Path

import torch

from medssl.encoders.tensors import write_json
from medssl.errors import ConfigError
from medssl.exchange.bundle_configs import inference_config, metadata, train_config
from medssl.exchange.monai import monai_network
from medssl.exchange.trained_model import TrainedModel

LICENCE = """The files of this bundle were written by medssl (Apache-2.0). The weights belong to whoever owns the data
that they were trained on: state your licence here before you hand the bundle on.
"""


def write_bundle(model: TrainedModel, folder: Path) -> list[str]:
    """Write the bundle and return notes for the user.

    models/model.pt is a bare state dict that `network_def` loads strictly. Raises ConfigError for a network that MONAI
    does not have, and for a run that one bundle cannot describe.
    """
    only = model.encoder.monai_size
    if model.network is not None and only is not None and model.network.patch != only:
        raise ConfigError(
            f"the model was fine-tuned on patches of {list(model.network.patch)} voxels, and MONAI's UNETR, built for "
            f"the pretraining's {list(only)}, takes no other. Fine-tune with --set patch={list(only)}, or export it "
            "with --format safetensors."
        )
    if not model.modalities_agree_on_spacing and len(model.modalities) > 1:
        raise ConfigError(
            f"the store's policy resampled {' and '.join(model.modalities)} to different spacings, and a bundle "
            "has one. Export it with --format safetensors."
        )
    network, reports = monai_network(model)
    out_channels = model.decoder.out_channels if model.decoder is not None else 1
    (folder / "models").mkdir(parents=True)
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    configs = folder / "configs"
    write_json(configs / "metadata.json", metadata(model, out_channels=out_channels))
    write_json(configs / "inference.json", inference_config(model, out_channels=out_channels))
    write_json(configs / "train.json", train_config(model, out_channels=out_channels))
    scripts = folder / "scripts"
    scripts.mkdir()
    (scripts / "__init__.py").touch()
    shutil.copyfile(Path(__file__).with_name("bundle_transforms.py"), scripts / "transforms.py")
    (folder / "docs").mkdir()
    (folder / "docs" / "README.md").write_text(_readme(model))
    (folder / "LICENSE").write_text(LICENCE)
    notes = [str(report).splitlines()[0] for report in reports]
    if model.decoder is None:
        notes.append("The run trained no decoder, so that of models/model.pt is freshly initialised.")
    if model.spacing_mm is None:
        notes.append("Scans kept their own spacing in training, so the bundle does not resample.")
    if len(model.modalities) > 1:
        notes.append(
            f"The run saw {' and '.join(model.modalities)}. The bundle asks whoever runs it for one: --modality."
        )
    return notes


def _readme(model: TrainedModel) -> str:
    what = (
        "segments scans" if model.network is not None else "turns scans into features, and is a start for fine-tuning"
    )
    several = len(model.modalities) > 1
    option = f" --modality {model.modalities[0]}" if several else ""
    trained_on = f"It was trained on {' and '.join(model.modalities)}." if model.modalities else ""
    each = " Each of them is prepared in its own way: let a run have scans of one, and name it." if several else ""
    return f"""# A network from medssl

This bundle {what}. It needs MONAI, fire, nibabel and pytorch-ignite; it does not need medssl.
{trained_on}{each}

Put scans (`*.nii.gz`) into `data/`, then, in the folder of the bundle:

    PYTHONPATH=. python -m monai.bundle run --config_file configs/inference.json{option}

To fine-tune, put images and labels of the same names into `data/images` and `data/labels`:

    PYTHONPATH=. python -m monai.bundle run --config_file configs/train.json{option}

Arrays are (channel, S, A, R): superior, anterior, right. Other orientations are turned when a scan is loaded.
"""
