"""The configuration files of a MONAI bundle, as plain dictionaries.

Axes: `Orientationd(axcodes="SAR")` puts a scan into (S, A, R) = (D, H, W), which is what medssl trains on.
"""

from typing import Any

import monai
import numpy as np
import torch

from medssl.exchange.monai import monai_target
from medssl.exchange.trained_model import TrainedModel
from medssl.store.normalisation import CT_LOW_HU, CT_MEAN_HU, CT_STD_HU

MONAI_NETWORKS = "monai.networks.nets"
VERSION = "1.0.0"
AXIS_LABELS = [["L", "R"], ["P", "A"], ["I", "S"]]
# What a bundle's workflow needs beyond MONAI itself: its command line, a reader of NIfTI, and the trainers.
REQUIRED = {"fire": "0.7.0", "nibabel": "5.3.0", "pytorch-ignite": "0.5.1"}


def metadata(model: TrainedModel, *, out_channels: int) -> dict[str, Any]:
    """configs/metadata.json, with every key that the bundle specification requires."""
    encoder = model.encoder
    shape: list[Any] = [f"{step}*n" for step in encoder.divisor]
    if encoder.monai_size is not None:
        shape = list(encoder.monai_size)
    image: dict[str, Any] = {
        "type": "image",
        "format": "magnitude",
        "num_channels": encoder.description.in_channels,
        "spatial_shape": shape,
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": {str(channel): "image" for channel in range(encoder.description.in_channels)},
    }
    names = model.label_names or dict.fromkeys(range(out_channels), "map")
    prediction = {
        **image,
        "format": "segmentation" if model.label_names else "raw",
        "num_channels": out_channels,
        "channel_def": {str(channel): names.get(channel, str(channel)) for channel in range(out_channels)},
    }
    latent = {
        **image,
        "format": "latent",
        "num_channels": encoder.channels[-1],
        "spatial_shape": ["n"] * 3,
        "channel_def": {"0": "features"},
    }
    outputs = {"pred": prediction} if model.network is not None else {"pred": prediction, "latent": latent}
    image |= {"modality": " or ".join(model.modalities)} if model.modalities else {}
    return {
        "version": VERSION,
        "changelog": {VERSION: "exported by medssl"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": REQUIRED,
        "name": "medssl export",
        "task": "segmentation" if model.network is not None else "self-supervised features",
        "description": _description(model),
        "authors": "made with medssl",
        "copyright": "as the owner of the training data decides",
        "network_data_format": {"inputs": {"image": image}, "outputs": outputs},
    }


def inference_config(model: TrainedModel, *, out_channels: int) -> dict[str, Any]:
    """configs/inference.json.

    Scans to label maps for a fine-tuned model, scans to features for a pretrained encoder.
    """
    segments = model.network is not None
    keys = ["image"]
    post = _segmentation_output() if segments else [_saving("features", "float32")]
    return {
        **_head(model, out_channels=out_channels),
        "output_dir": "$@bundle_root + '/eval'",
        "files": "$sorted(glob.glob(@dataset_dir + '/**/*.nii.gz', recursive=True))",
        "encoder": monai_target(model.encoder).features,
        "preprocessing": _component("Compose", transforms=[*_reading(model, keys), *_padding(model, segments)]),
        "dataset": _component("Dataset", data="$[{'image': f} for f in @files]", transform="@preprocessing"),
        "dataloader": _component("DataLoader", dataset="@dataset", batch_size=1, num_workers=0),
        "inferer": _window(model),
        "postprocessing": _component("Compose", transforms=post),
        "evaluator": _component(
            "SupervisedEvaluator",
            device="@device",
            val_data_loader="@dataloader",
            network="@network" if segments else "@encoder",
            inferer="@inferer",
            postprocessing="@postprocessing",
        ),
        "load": "$@network_def.load_state_dict(torch.load(@checkpoint, map_location=@device, weights_only=True))",
        "initialize": ["$@network", "$@load"],
        "run": ["$@evaluator.run()"],
    }


def train_config(model: TrainedModel, *, out_channels: int) -> dict[str, Any]:
    """configs/train.json.

    Fine-tune on images/*.nii.gz and labels/*.nii.gz of the same names, from the exported weights.
    """
    keys = ["image", "label"]
    pairs = "$[{'image': i, 'label': l} for i, l in zip(@images, @labels, strict=True)]"
    patch = list(model.encoder.monai_size or model.patch or [2 * step for step in model.encoder.divisor])
    sampled = {"label_key": "label", "spatial_size": "@patch", "num_samples": 2, "allow_smaller": False}
    crop = _component("RandCropByPosNegLabeld", keys=keys, **sampled)
    pad = _component("SpatialPadd", keys=keys, spatial_size="@patch")
    return {
        **_head(model, out_channels=out_channels),
        "patch": patch,
        "epochs": 100,
        "learning_rate": 0.001,
        "images": "$sorted(glob.glob(@dataset_dir + '/images/*.nii.gz'))",
        "labels": "$sorted(glob.glob(@dataset_dir + '/labels/*.nii.gz'))",
        "preprocessing": _component("Compose", transforms=[*_reading(model, keys), pad, crop]),
        "dataset": _component("Dataset", data=pairs, transform="@preprocessing"),
        "dataloader": _component("DataLoader", dataset="@dataset", batch_size=1, shuffle=True, num_workers=0),
        "loss": _component("DiceCELoss", to_onehot_y=True, softmax=True, batch=True),
        "optimizer": _component("torch.optim.AdamW", params="$@network.parameters()", lr="@learning_rate"),
        "trainer": _component(
            "SupervisedTrainer",
            max_epochs="@epochs",
            device="@device",
            train_data_loader="@dataloader",
            network="@network",
            loss_function="@loss",
            optimizer="@optimizer",
            inferer=_component("SimpleInferer"),
        ),
        "load": "$monai.networks.copy_model_state(@network_def, torch.load(@checkpoint, map_location=@device, "
        "weights_only=True))",
        "initialize": ["$@network", "$@load"],
        "run": ["$@trainer.run()"],
        "finalize": ["$torch.save(@network_def.state_dict(), @bundle_root + '/models/finetuned.pt')"],
    }


def _head(model: TrainedModel, *, out_channels: int) -> dict[str, Any]:
    path = monai_target(model.encoder).path
    package, _, name = path.rpartition(".")
    return {
        "imports": ["$import glob", "$import numpy", "$import torch", "$import monai"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "checkpoint": "$@bundle_root + '/models/model.pt'",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        # Of several none is assumed: the transform refuses until one is given.
        "modality": model.modalities[0] if len(model.modalities) == 1 else None,
        "network_def": {
            "_target_": name if package == MONAI_NETWORKS else path,  # MONAI finds its own classes by name
            **model.encoder.monai_arguments(out_channels),
        },
        "network": "$@network_def.to(@device)",
    }


def _reading(model: TrainedModel, keys: list[str]) -> list[dict[str, Any]]:
    """Scans in (D, H, W) = (S, A, R), at the spacing of the training where it had one, normalised as in training."""
    steps = [
        _component("LoadImaged", keys=keys, reader="NibabelReader", ensure_channel_first=True),
        _component("Orientationd", keys=keys, axcodes="SAR", labels=AXIS_LABELS),
    ]
    if model.spacing_mm is not None:
        modes = ["bilinear", "nearest"][: len(keys)]
        steps.append(_component("Spacingd", keys=keys, pixdim=list(model.spacing_mm), mode=modes))
    scale = {"modality": "@modality", "modalities": list(model.modalities)}
    return [*steps, _component("scripts.transforms.NormalizeScand", keys=["image"], **scale)]


def _padding(model: TrainedModel, segments: bool) -> list[dict[str, Any]]:
    """Scans that are too small get the value of air around them, as in training: the low end of the window."""
    smallest = model.patch if segments else model.encoder.monai_size
    pad = _component("DivisiblePadd", keys=["image"], k=list(model.encoder.divisor))
    if smallest is not None:
        pad = _component("SpatialPadd", keys=["image"], spatial_size=list(smallest))
    # Outside CT the window begins within the scan's own range, so its darkest voxel has that value.
    darkest = pad | {"mode": "minimum"}
    if "CT" not in model.modalities:
        return [darkest]
    air = pad | {"mode": "constant", "value": (CT_LOW_HU - CT_MEAN_HU) / CT_STD_HU}
    if model.modalities == ("CT",):
        return [air]
    return [air | {"_disabled_": "$@modality != 'CT'"}, darkest]  # the second finds nothing to do after the first


def _window(model: TrainedModel) -> dict[str, Any]:
    metadata = model.network
    if metadata is not None:
        window = {"roi_size": list(metadata.patch), "sw_batch_size": 4, "overlap": metadata.overlap, "mode": "gaussian"}
        return _component("SlidingWindowInferer", **window)
    if model.encoder.monai_size is None:
        return _component("SimpleInferer")
    # MONAI's UNETR knows places on one grid of tokens only: features come window by window.
    return _component("SlidingWindowInferer", roi_size=list(model.encoder.monai_size), sw_batch_size=4, overlap=0.0)


def _segmentation_output() -> list[dict[str, Any]]:
    back = {"transform": "@preprocessing", "orig_keys": ["image"], "nearest_interp": True, "to_tensor": True}
    return [
        _component("AsDiscreted", keys=["pred"], argmax=True),
        _component("Invertd", keys=["pred"], **back),
        _saving("labels", "uint8"),
    ]


def _saving(postfix: str, dtype: str) -> dict[str, Any]:
    names = {"output_dir": "@output_dir", "output_postfix": postfix, "output_dtype": f"$numpy.{dtype}"}
    return _component("SaveImaged", keys=["pred"], **names, resample=False, separate_folder=False)


def _component(target: str, **arguments: Any) -> dict[str, Any]:
    """What MONAI builds from a class and its arguments."""
    return {"_target_": target, **arguments}


def _description(model: TrainedModel) -> str:
    task = model.metadata.get("task")
    if model.network is not None:
        return "A segmentation network fine-tuned with medssl."
    learnt = f" by the pretext task '{task}'" if task else ""
    state = "with the decoder that it trained" if model.decoder is not None else "the decoder is freshly initialised"
    return f"An encoder pretrained without labels{learnt}; {state}."
