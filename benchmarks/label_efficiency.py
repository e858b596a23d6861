"""Does pretraining help when labels are few? The hippocampus benchmark, from scans to the table, by a user's commands.

    python benchmarks/label_efficiency.py --out /tmp/evidence

200 labelled MR crops (Medical Segmentation Decathlon, task 4): 40 form the test split, drawn once with the seed below
and written to benchmarks/label_efficiency/splits.csv. The others serve for pretraining, without their labels, and 3, 5,
10 and 20 of them for fine-tuning. The same call again completes what was interrupted.
"""

import argparse
import csv
import hashlib
import random
import sys
from pathlib import Path

from command import medssl

HERE = Path(__file__).resolve().parent
SETTINGS = HERE / "label_efficiency"
DATA = HERE.parents[1] / "shared" / "data" / "hippocampus"
TEST_SCANS, SPLIT_SEED = 40, 20261122
# Public data: a public key makes the pseudonyms, and with them the choice of labelled scans, the same everywhere.
KEY = hashlib.sha256(b"medssl hippocampus benchmark").hexdigest()
TASKS = ("pseudo-segmentation", "masked-volume", "simclr")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="working folder")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with images/ and labels/")
    parser.add_argument("--num-labelled", default="3,5,10,20")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument(
        "--set", dest="settings", nargs="*", default=[], help="settings of the fine-tuning, for ablations"
    )
    parser.add_argument("--results", default="evidence", help="name of the folder for table and plot under --out")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    splits = SETTINGS / "splits.csv"
    write_splits(splits, arguments.data)
    key = out / "benchmark.key"
    if not key.exists():
        key.write_text(KEY)
        key.chmod(0o600)
    cohort = out / "cohort"
    medssl(
        "ingest", arguments.data / "images", "--label-dir", arguments.data / "labels",
        "--splits", splits, "--key-file", key, "--out", cohort,
    )  # fmt: skip
    inits = []
    for task in arguments.tasks:
        folder = out / task
        if not (folder / "encoder.json").exists():
            again = ["--resume"] if (folder / "run.json").exists() else []
            medssl(
                "pretrain", "--cohort", cohort, "--task", task, "--config", SETTINGS / f"{task}.yaml",
                "--out", folder, *again,
            )  # fmt: skip
        inits += ["--init", f"{task}={folder}"]
    choices = [part for setting in arguments.settings for part in ("--set", setting)]
    medssl(
        "label-efficiency", "--cohort", cohort, *inits, "--config", SETTINGS / "finetune.yaml", *choices,
        "--num-labelled", arguments.num_labelled, "--seeds", arguments.seeds, "--out", out / arguments.results,
    )  # fmt: skip


def write_splits(path: Path, data: Path) -> None:
    """Draw the test split from the sorted names of the labelled scans; an existing file is compared, never replaced."""
    names = sorted(p.name for p in (data / "labels").glob("*.nii.gz"))
    test = set(random.Random(SPLIT_SEED).sample(names, TEST_SCANS))
    rows = [(p.name, "test" if p.name in test else "train") for p in sorted((data / "images").glob("*.nii.gz"))]
    if path.exists():
        with path.open(newline="") as file:
            existing = [tuple(row) for row in csv.reader(file)][1:]
        if existing != rows:
            sys.exit(f"{path} lists another split than these scans give; is {data} complete?")
        return
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("file", "split"), *rows])


if __name__ == "__main__":
    main()
