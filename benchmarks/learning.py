"""Does every task learn? Each is trained on phantoms for seconds, and linear probes read tissues off its encoder.

    python benchmarks/learning.py [--tasks NAME ...] [--seeds 3] [--steps 150]

For every task that ships: its final loss beside its trivial loss, and two linear probes of the frozen encoder, before
and after training: segmentation from dense features (Dice), and the tissue in the middle of a small patch from pooled
features (accuracy; chance is a quarter). Tissues differ in texture and position, not in mean intensity. Prints a table
of means over the seeds and writes it to benchmarks/results/learning.md, where rows of other tasks stay.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from machine import RESULTS, machine
from torch import Tensor

from medssl.config import OptimConfig
from medssl.diagnostics.probe import LinearProbe, probe_segmentation
from medssl.encoders.encoder import Encoder
from medssl.geometry import Volume
from medssl.loading.crops import Crop
from medssl.loading.loader import RegionLoader, batch_at
from medssl.loading.plan import BatchPlan
from medssl.plugins import list_tasks, load_task
from medssl.pretext.projection import pooled_levels
from medssl.pretext.task import PretextTask
from medssl.store.policy import StorePolicy
from medssl.store.volumes import StoredVolume, write_volume
from medssl.testing import TinyEncoder
from medssl.training.optimizer import lr_at_step, make_optimizer, set_lr
from medssl.training.step import seed_step
from medssl.views.region import Region

SHAPE = (44, 40, 36)  # (X, Y, Z) voxels of a phantom
PATCH = (16, 24, 32)  # (D, H, W)
CLASSES = 5  # air, body, and three organs
SCANS, LABELLED, HELD_OUT = 24, 6, 6
PATCHES, PATCH_EDGE = 12, 16  # small patches per tissue and scan, and their edge in voxels
BATCH = 4
OPTIM = OptimConfig(lr=2e-3)
# Other than the defaults: half as many clusters as scans, and a queue of their number, as the page of swav recommends.
OPTIONS = {"swav": {"prototypes": SCANS // 2, "queue": SCANS}}
# Factors of the number of steps. rotation: steps are quick, with few labels each. swav, dino: targets carry little
# information until the queue is full or the centre has adapted. adversarial: the critic learns only once the generator
# does.
STEP_FACTORS = {"rotation": 4, "swav": 3, "dino": 3, "adversarial": 2}
CLEAR = 0.02  # gain above the variation from the choice of scans


@dataclass(frozen=True)
class Training:
    """One training.

    Attributes:
        loss: mean over the last tenth of the steps.
        trivial_loss: the same for the trivial loss; None if the task has none.
        before: probes of the random encoder.
        after: probes of the trained encoder.
        cpu_s: CPU seconds.
    """

    loss: float
    trivial_loss: float | None
    before: "ProbeScores"
    after: "ProbeScores"
    cpu_s: float

    @property
    def is_clear(self) -> bool:
        """Whether the loss is below the trivial value and one of the probes clearly better than before."""
        below = self.trivial_loss is None or self.loss < self.trivial_loss
        return below and max(self.after.dice - self.before.dice, self.after.accuracy - self.before.accuracy) > CLEAR


@dataclass(frozen=True)
class ProbeScores:
    """Scores of both probes.

    Attributes:
        dice: of the segmentation, mean over body and organs.
        accuracy: fraction of patches whose tissue is predicted correctly.
    """

    dice: float
    accuracy: float


def phantoms(folder: Path, count: int, *, seed: int) -> list[StoredVolume]:
    """Stored scans of invented patients, each with its labels."""
    stored = []
    for number in range(count):
        voxels, labels = (Volume(array, np.eye(4)) for array in phantom(np.random.default_rng([seed, number])))
        name = f"phantom{seed}-{number}"
        stored.append(write_volume(folder, name, voxels, modality="MR", label=labels, policy=StorePolicy()))
    return stored


def phantom(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(X, Y, Z) int16 voxels and uint8 labels: an ellipsoid with three organs of the same mean intensity.

    Organs differ in texture (fine grain, stripes, coarse lumps) and position. Up differs from down and front from back.
    """
    axes = np.meshgrid(*(np.linspace(-1, 1, edge) for edge in SHAPE), indexing="ij")
    stretch = random.uniform(0.8, 0.95, 3)
    body = sum((axis / size) ** 2 for axis, size in zip(axes, stretch, strict=True)) < 1
    labels = body.astype(np.uint8)
    volume = (
        300.0 + random.uniform(-20, 20) * axes[0] + random.uniform(40, 80) * axes[1] + random.uniform(60, 120) * axes[2]
    )
    textures = (grain(random, 1), stripes(random), grain(random, 3))
    positions = ((-0.35, -0.2, 0.3), (0.4, 0.1, 0.2), (0.0, 0.2, -0.4))
    for label, (texture, position) in enumerate(zip(textures, positions, strict=True), start=2):
        centre, radius = np.array(position) + random.uniform(-0.12, 0.12, 3), random.uniform(0.28, 0.38)
        inside = sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) < radius**2
        labels[inside & body] = label
        volume = np.where(inside, 380 + random.uniform(-50, 50) + random.uniform(60, 110) * texture, volume)
    noisy = random.uniform(0.7, 1.4) * volume * body + random.normal(0, 15, SHAPE)
    return np.clip(noisy, 0, 4000).astype(np.int16), labels


def grain(random: np.random.Generator, size: int) -> np.ndarray:
    """Lumps of about `size` voxels, with mean 0 and deviation 1."""
    field = random.standard_normal([edge + 4 * size for edge in SHAPE])
    for axis in range(3):
        window = np.ones(size + 1) / (size + 1)
        field = np.apply_along_axis(np.convolve, axis, field, window, mode="same")
    cut = field[tuple(slice(2 * size, 2 * size + edge) for edge in SHAPE)]
    return (cut - cut.mean()) / cut.std()


def stripes(random: np.random.Generator) -> np.ndarray:
    """Waves of about 6 voxels along Z, a little tilted in each patient."""
    direction = np.array([0.0, 0.0, 1.0]) + 0.2 * random.standard_normal(3)
    direction /= np.linalg.norm(direction)
    along = sum(d * np.arange(edge).reshape(shape) for d, edge, shape in zip(
        direction, SHAPE, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True))  # fmt: skip
    return np.sqrt(2) * np.sin(2 * np.pi * along / random.uniform(5, 7) + random.uniform(0, 6))


def train(task: PretextTask, scans: Sequence[StoredVolume], *, steps: int, seed: int) -> tuple[float, float | None]:
    """Mean loss and trivial loss over the last tenth of the steps, which are those of the training loop."""
    optimizer = make_optimizer([(task, 1.0)], OPTIM)
    losses, trivial = [], []
    with RegionLoader(
        BatchPlan(scans, task.crops(PATCH), batch_size=BATCH, seed=seed), workers=0, first_step=0
    ) as loader:
        for step, batch in zip(range(steps), loader, strict=False):
            seed_step(seed, step, 0)
            with torch.no_grad():
                views = task.views(Region(batch, device=torch.device("cpu"), seed=seed))
            out = task(views)
            out.loss.backward()
            if OPTIM.clip_norm:
                torch.nn.utils.clip_grad_norm_(task.parameters(), OPTIM.clip_norm)
            set_lr(optimizer, lr_at_step(step, steps, OPTIM))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            task.after_step(step, steps)
            losses.append(float(out.loss.detach()))
            trivial_loss = out.terms.get("trivial_loss") if out.trivial_loss is None else out.trivial_loss
            if trivial_loss is not None:
                trivial.append(float(trivial_loss))
    last = slice(-max(1, steps // 10), None)
    return statistics.mean(losses[last]), statistics.mean(trivial[last]) if trivial else None


def scans_with_labels(scans: Sequence[StoredVolume]) -> tuple[Tensor, Tensor]:
    """(N, 1, D, H, W) normalised scans and their labels, in the order of `scans`."""
    x, y, z = (edge // 4 * 4 for edge in SHAPE)
    images, labels = [], []
    for scan in scans:
        plan = BatchPlan([scan], {"patch": Crop(size=(z, y, x))}, batch_size=1, seed=0)
        region = Region(batch_at(plan, with_labels=True), device=torch.device("cpu"), seed=0)
        images.append(region.crop("patch"))
        labels.append(region.label("patch"))
    return torch.cat(images), torch.cat(labels)


def learn(
    name: str, scans: Sequence[StoredVolume], probed: tuple[Tensor, Tensor], *, steps: int, seed: int
) -> Training:
    """Train one task over a fresh encoder, and probe that before and after."""
    started = time.process_time()
    torch.manual_seed(seed)
    loaded = load_task(name)
    task = loaded.cls(TinyEncoder(), loaded.cls.Config(**OPTIONS.get(name, {})))
    fresh = deepcopy(task.exported_encoder())
    loss, trivial = train(task, scans, steps=steps * STEP_FACTORS.get(name, 1), seed=seed)
    return Training(
        loss, trivial, probe(fresh, probed), probe(task.exported_encoder(), probed), time.process_time() - started
    )


def probe(encoder: Encoder, probed: tuple[Tensor, Tensor]) -> ProbeScores:
    """Both probes, on the scans that they were not fitted on."""
    images, labels = probed
    dice = probe_segmentation(encoder, images, labels, classes=CLASSES, fit_on=LABELLED).mean_dice
    patches, tissues = small_patches(images, labels)
    with torch.no_grad():
        features = torch.cat([pooled_levels(encoder.eval()(part), 2) for part in patches.split(32)])
    fitted = len(patches) * LABELLED // len(images)
    matrix = LinearProbe.fit(features[:fitted], tissues[:fitted], classes=CLASSES, ridge=1e-2)
    right = matrix.predict(features[fitted:]) == tissues[fitted:]
    return ProbeScores(dice, float(right.double().mean()))


def small_patches(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 1, d, d, d) patches of every scan, as many for each tissue, and the tissue in the middle of each."""
    half = PATCH_EDGE // 2
    random = torch.Generator().manual_seed(0)
    patches, tissues = [], []
    for image, label in zip(images, labels, strict=True):
        inner = label[0, half:-half, half:-half, half:-half]
        for tissue in range(1, CLASSES):
            voxels = (inner == tissue).nonzero()
            for d, h, w in voxels[torch.randint(len(voxels), (PATCHES,), generator=random)].tolist():
                patches.append(image[:, d : d + 2 * half, h : h + 2 * half, w : w + 2 * half])
                tissues.append(tissue)
    return torch.stack(patches), torch.tensor(tissues)


def every_task(names: Sequence[str], *, steps: int, seeds: int, folder: Path) -> Iterator[tuple[str, list[Training]]]:
    """Each task with one training per seed."""
    scans = phantoms(folder, SCANS, seed=0)
    probed = scans_with_labels(phantoms(folder, LABELLED + HELD_OUT, seed=1))
    for name in names:
        yield name, [learn(name, scans, probed, steps=steps, seed=seed) for seed in range(seeds)]


def row(name: str, runs: Sequence[Training]) -> str:
    """One line of the table."""
    trivial = (
        "none" if runs[0].trivial_loss is None else f"{statistics.mean(run.trivial_loss or 0.0 for run in runs):.3f}"
    )
    cells = [
        f"`{name}`",
        f"{statistics.mean(run.loss for run in runs):.3f}",
        trivial,
        *gain([run.before.dice for run in runs], [run.after.dice for run in runs]),
        *gain([run.before.accuracy for run in runs], [run.after.accuracy for run in runs]),
        f"{sum(run.is_clear for run in runs)} of {len(runs)}",
        f"{statistics.mean(run.cpu_s for run in runs):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def gain(before: list[float], after: list[float]) -> tuple[str, str]:
    """From where to where, and the gain with its standard deviation over seeds."""
    gains = [b - a for a, b in zip(before, after, strict=True)]
    spread = statistics.stdev(gains) if len(gains) > 1 else 0.0
    path = f"{statistics.mean(before):.3f} to {statistics.mean(after):.3f}"
    return path, f"{statistics.mean(gains):+.3f} ± {spread:.3f}"


HEAD = """| task | loss | trivial | Dice | gain | tissue | gain | clear | CPU s |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    shipped = [entry.name for entry in list_tasks() if entry.built_in]
    parser.add_argument("--tasks", nargs="+", choices=shipped, default=shipped, metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = {}
    print(HEAD)
    with tempfile.TemporaryDirectory() as folder:
        for name, runs in every_task(
            arguments.tasks, steps=arguments.steps, seeds=arguments.seeds, folder=Path(folder)
        ):
            lines[name] = row(name, runs)
            print(lines[name], flush=True)
    write(lines, shipped, seeds=arguments.seeds, steps=arguments.steps)


def write(lines: dict[str, str], names: Sequence[str], *, seeds: int, steps: int) -> None:
    """Write the table; rows of tasks that were not run stay if seeds and steps are the same."""
    path, command = RESULTS / "learning.md", f"`python benchmarks/learning.py --seeds {seeds} --steps {steps}`"
    before = path.read_text() if path.exists() else ""
    if command in before:
        lines = {line.split("`")[1]: line for line in before.splitlines() if line.startswith("| `")} | lines
    computer = machine()
    text = [
        "# Does every task learn?",
        "",
        f"{command} on {computer['processor']}, {computer['date']}. The script explains what is trained and probed.",
        "",
        HEAD,
        *(lines[name] for name in names if name in lines),
        "",
    ]
    path.write_text("\n".join(text))


if __name__ == "__main__":
    main()
