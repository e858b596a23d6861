"""One of two ranks: `python rank_of_two.py RANK FOLDER` trains every case on its half of the batches in FOLDER.

Started by test_two_ranks.py, which compares what the ranks write with one process. Everything is in float64.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))

import torch
import torch.distributed as dist
from joint_world import CASES as JOINT
from joint_world import COMBINED, gradient, make
from torch.nn.parallel import DistributedDataParallel

STEPS = 3
CASES = {**JOINT, **COMBINED}


def run(case: str, batches: list[dict], rank: int | None) -> dict:
    """Gradients and energies of each step, and the state at the end. rank: None for one process with whole batches."""
    task = make(case).double()
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=0.05)
    model = task if rank is None else DistributedDataParallel(task)
    out: dict = {"gradients": [], "energies": [], "losses": []}
    for step, batch in enumerate(batches):
        half = slice(None) if rank is None else slice(rank * 2, rank * 2 + 2)
        optimizer.zero_grad()
        result = model({name: view[half] for name, view in batch.items()})
        result.loss.backward()
        out["gradients"].append(gradient(task))
        out["energies"].append(result.energy)
        out["losses"].append(result.loss.detach())
        optimizer.step()
        task.after_step(step, STEPS)
    return out | {"state": task.state_dict()}


def main() -> None:
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    batches = torch.load(folder / "batches.pt")
    torch.save({case: run(case, batches[case], rank) for case in CASES}, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
