"""A run as safetensors.

Weights under MONAI's own key names, and a description in JSON. The form to keep and to publish.
"""

from pathlib import Path
from typing import Any

from medssl.encoders.tensors import plain_state, write_json, write_tensors
from medssl.encoders.transfer import check_forward_equality
from medssl.encoders.weights import load_encoder, save_encoder
from medssl.exchange.monai import TARGETS, monai_arguments, monai_network, monai_target, not_in_monai
from medssl.exchange.source import Source


def write_plain(source: Source, folder: Path) -> list[str]:
    """Write weights, encoder.json, network.json and README.md; return notes for the user.

    `medssl finetune --init FOLDER` reads the folder as it reads a run.
    """
    save_encoder(folder, source.encoder, source.decoder, facts=source.public_facts)
    again, _ = load_encoder(folder)
    check_forward_equality(source.encoder, again, source.test_image(), tolerance=0.0)
    if source.encoder.description.name not in TARGETS:
        return ["The encoder comes from a plugin: whoever loads the weights needs that plugin."]
    reason = not_in_monai(source.encoder.description)
    if reason is not None:
        return [f"{reason}: whoever loads the weights needs medssl."]
    write_json(folder / "network.json", _network(source))
    notes = []
    if source.decoder is not None:
        monai_network(source)  # proves that the keys are MONAI's and that the forward pass agrees
        write_tensors(folder / "network.safetensors", plain_state(source.encoder) | plain_state(source.decoder))
        notes.append("network.safetensors holds encoder and decoder together, for MONAI's own class.")
    (folder / "README.md").write_text(_readme(source))
    return notes


def _network(source: Source) -> dict[str, Any]:
    description = source.encoder.description
    out_channels = source.decoder.out_channels if source.decoder is not None else 1
    import monai

    return {
        "class": monai_target(description).path,
        "arguments": monai_arguments(description, out_channels),
        "monai_version": monai.__version__,
        "axes": "(B, C, D, H, W) = superior, anterior, right",
        "spacing_mm": list(source.spacing_mm) if source.spacing_mm is not None else None,
        "patch": list(source.patch) if source.patch is not None else None,
        "modalities": list(source.modalities),
        "label_names": {str(value): name for value, name in source.label_names.items()},
    }


def _readme(source: Source) -> str:
    return f"""# An encoder from medssl

`encoder.safetensors` has the key names of {monai_target(source.encoder.description).path}.
With MONAI and safetensors alone:

```python
import json
from pathlib import Path
from monai.networks import nets
from safetensors.torch import load_file

facts = json.loads(Path("network.json").read_text())
network = getattr(nets, facts["class"].rpartition(".")[2])(**facts["arguments"])
missing, unexpected = network.load_state_dict(load_file("encoder.safetensors"), strict=False)
assert not unexpected  # `missing` names the decoder, and the aliases `skip_layers.*` of a DynUNet
```

With medssl: `medssl finetune --init THIS_FOLDER`, or `medssl.encoders.weights.load_encoder`.
"""
