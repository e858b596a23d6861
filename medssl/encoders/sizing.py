"""How large a network is when nobody says: presets, and the reason for the one that is taken."""

from typing import Literal, get_args

Preset = Literal["tiny", "small", "base", "large"]

PRESETS: tuple[Preset, ...] = get_args(Preset)
GIB = 2**30

# Memory of the device up to which a preset is taken: activations of two views of a 128-cubed patch in bfloat16, with
# room to spare.
MEMORY_LIMITS_GIB: tuple[tuple[float, Preset], ...] = ((10.0, "small"), (24.0, "base"))


def preset_for_device(memory_bytes: int | None) -> tuple[Preset, str]:
    """The preset for a device with this much memory (None: a CPU), and the reason in words."""
    if memory_bytes is None:
        return "tiny", "preset 'auto' is 'tiny': there is no GPU, and larger networks take hours on a CPU"
    memory_gib = memory_bytes / GIB
    for limit_gib, preset in MEMORY_LIMITS_GIB:
        if memory_gib < limit_gib:
            return preset, f"preset 'auto' is '{preset}': the GPU has {memory_gib:.0f} GiB, less than {limit_gib:.0f}"
    return "large", f"preset 'auto' is 'large': the GPU has {memory_gib:.0f} GiB"


def device_memory_bytes() -> int | None:
    """Memory of the smallest GPU that this process sees; None without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    return min(torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count()))
