"""Two processes with different data are one process with all of it: every task, several steps, all state."""

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))

import pytest
import torch
from joint_world import in_double, make, region, store_phantoms
from rank_of_two import CASES, STEPS, run

HERE = Path(__file__).parent
# Tasks whose later steps depend on what they remember of earlier ones: queues, teachers, centres, clusters.
WITH_STATE = ("moco", "byol", "swav", "deepercluster", "dino", "jepa", "combine")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """(one process, rank 0, rank 1), each with what every case gave: one pair of processes runs them all."""
    folder = tmp_path_factory.mktemp("ranks")
    scans = store_phantoms(folder / "store", 4)
    batches = {}
    for case in CASES:
        task = make(case)
        steps = STEPS if case.split()[0] in WITH_STATE else 1
        batches[case] = [in_double(task.views(region(task, scans, step=step))) for step in range(steps)]
    torch.save(batches, folder / "batches.pt")
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(HERE / "rank_of_two.py")]
    ranks = [
        subprocess.Popen([*command, str(rank), str(folder)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    errors = [rank.communicate(timeout=280)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors[0][-2000:] + errors[1][-2000:]
    alone = {case: run(case, batches[case], None) for case in CASES}
    return alone, torch.load(folder / "rank0.pt"), torch.load(folder / "rank1.pt")


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_have_gradients_of_one_process(case, outcome):
    """Gradients of two ranks are those of one process."""
    alone, *ranks = (each[case] for each in outcome)
    for step, expected in enumerate(alone["gradients"]):
        assert expected.norm() > 0
        for rank in ranks:
            got = rank["gradients"][step]
            assert torch.cosine_similarity(got, expected, dim=0) > 1 - 1e-9
            assert (got.norm() / expected.norm()).item() == pytest.approx(1.0, abs=1e-8)
        together = torch.cat([rank["energies"][step] for rank in ranks])
        assert torch.allclose(together, alone["energies"][step], atol=1e-8)
        mean = torch.stack([rank["losses"][step] for rank in ranks]).mean()
        assert mean.item() == pytest.approx(alone["losses"][step].item(), rel=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_have_state_of_one_process(case, outcome):
    """State is that of one process and the same on both ranks."""
    alone, first, second = (each[case]["state"] for each in outcome)
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(first[name], value, rtol=1e-7, atol=1e-9), name
