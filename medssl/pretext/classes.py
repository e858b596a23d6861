"""Energies of tasks that choose among classes."""

from torch import Tensor
from torch.nn import functional as F


def class_energies(logits: Tensor, answer: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) cross-entropy of the right class, and without gradient the mean of that of all wrong classes.

    Logits (B, K), answers (B,). A head that says the same of everything gives ln K for both.
    """
    surprise = -F.log_softmax(logits, dim=1)  # (B, K)
    right = surprise.gather(1, answer.unsqueeze(1)).squeeze(1)
    wrong = (surprise.sum(dim=1) - right) / (logits.shape[1] - 1)
    return right, wrong.detach()
