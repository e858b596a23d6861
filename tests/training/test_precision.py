"""Mixed precision computes in 16 bits, but does not round what the task compares with."""

import pytest
import torch
from torch import Tensor, nn

from medssl.config import LoopConfig
from medssl.training.fabric import start_fabric


class Listening(nn.Module):
    """Remembers in what precision things came in, and in what a product was computed."""

    def __init__(self) -> None:
        super().__init__()
        self.product = nn.Linear(4, 4)

    def forward(self, views: dict[str, Tensor]) -> Tensor:
        self.came, computed = views["place"].clone(), self.product(views["place"])
        self.computed = computed.dtype
        return computed


@pytest.mark.parametrize(("precision", "computed"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_mixed_precision_leaves_views_in_full_precision(precision, computed):
    fabric = start_fabric(LoopConfig(precision=precision, steps=1))
    module = Listening()
    model = fabric.setup(module)
    place = torch.tensor([[100.25, 161.125, 0.1, 1.0]])
    out = model({"place": place})
    assert torch.equal(module.came, place)
    assert module.computed == computed
    assert out.dtype == torch.float32
