"""A run as safetensors.

Weights under MONAI's own key names, and a description in JSON. The form to keep and to publish.
"""

from pathlib import Path
from typing import Any

from medssl.encoders.shipped import shipped_encoders
from medssl.encoders.tensors import plain_state, write_json, write_tensors
from medssl.encoders.transfer import check_forward_equality
from medssl.encoders.weights import load_encoder, save_encoder
from medssl.exchange.monai import monai_network, monai_target, not_in_monai
from medssl.exchange.trained_model import TrainedModel


def write_plain(model: TrainedModel, folder: Path) -> list[str]:
    """Write weights, encoder.json, network.json and README.md; return notes for the user.

    `medssl finetune --init FOLDER` reads the folder as it reads a run.
    """
    save_encoder(folder, model.encoder, model.decoder, metadata=model.public_metadata)
    again, _ = load_encoder(folder)
    check_forward_equality(model.encoder, again, model.test_image(), tolerance=0.0)
    reason, is_shipped = not_in_monai(model.encoder), model.encoder.description.name in shipped_encoders()
    if reason is not None:
        return [f"{reason}: whoever loads the weights needs {'medssl' if is_shipped else 'the plugin of the encoder'}."]
    write_json(folder / "network.json", _network(model))
    notes = []
    if model.decoder is not None:
        monai_network(model)  # proves that the keys are MONAI's and that the forward pass agrees
        write_tensors(folder / "network.safetensors", plain_state(model.encoder) | plain_state(model.decoder))
        notes.append("network.safetensors holds encoder and decoder together, for MONAI's own class.")
    (folder / "README.md").write_text(_readme(model))
    return notes


def _network(model: TrainedModel) -> dict[str, Any]:
    out_channels = model.decoder.out_channels if model.decoder is not None else 1
    import monai

    return {
        "class": monai_target(model.encoder).path,
        "arguments": model.encoder.monai_arguments(out_channels),
        "monai_version": monai.__version__,
        "axes": "(B, C, D, H, W) = superior, anterior, right",
        "spacing_mm": list(model.spacing_mm) if model.spacing_mm is not None else None,
        "patch": list(model.patch) if model.patch is not None else None,
        "modalities": list(model.modalities),
        "label_names": {str(value): name for value, name in model.label_names.items()},
    }


def _readme(model: TrainedModel) -> str:
    return f"""# An encoder from medssl

`encoder.safetensors` has the key names of {monai_target(model.encoder).path}.
With MONAI and safetensors alone:

```python
import importlib
import json
from pathlib import Path
from safetensors.torch import load_file

description = json.loads(Path("network.json").read_text())
package, _, name = description["class"].rpartition(".")
network = getattr(importlib.import_module(package), name)(**description["arguments"])
missing, unexpected = network.load_state_dict(load_file("encoder.safetensors"), strict=False)
assert not unexpected  # `missing` names the decoder, and the aliases `skip_layers.*` of a DynUNet
```

With medssl: `medssl finetune --init THIS_FOLDER`, or `medssl.encoders.weights.load_encoder`.
"""
