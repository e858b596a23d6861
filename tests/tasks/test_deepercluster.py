"""deepercluster: labels, weights and the clustering of its memory."""

import math

import pytest
import torch
from joint_world import make
from torch.nn import functional as F

from medssl.errors import ConfigError


def directions(count, seed=0):
    return F.normalize(torch.randn(count, 16, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_flat_loss_matches_naive_loop():
    """The flat loss is the weighted cross entropy of a naive loop."""
    task = make("deepercluster")
    task.centroids.copy_(directions(4))
    task.weights.copy_(torch.tensor([0.5, 1.0, 2.0, 4.0]))
    a, b = directions(6, 1), directions(6, 2)
    terms = []
    for x, y in ((a, b), (b, a)):
        for i in range(6):
            label = max(range(4), key=lambda k: float(y[i] @ task.centroids[k]))
            scores = [float(x[i] @ centre) / 0.1 for centre in task.centroids]
            loss = math.log(sum(math.exp(score) for score in scores)) - scores[label]
            terms.append(float(task.weights[label]) * loss)
    assert task.compare({"a": a, "b": b}).loss.item() == pytest.approx(sum(terms) / 12, rel=1e-5)


def test_label_lies_in_nearest_group():
    """In groups the label lies in the nearest group."""
    task = make("deepercluster in groups")
    vectors = directions(30, 3)
    task.cluster(directions(60, 4))
    labels = task._label(vectors)
    nearest_group = (vectors @ task.group_centroids.T).argmax(dim=1)
    assert torch.equal(labels // 2, nearest_group)
    for vector, label, group in zip(vectors, labels, nearest_group, strict=True):
        inside = [int(group) * 2, int(group) * 2 + 1]
        assert int(label) == max(inside, key=lambda k: float(vector @ task.centroids[k]))


def test_uniform_vector_costs_trivial_loss():
    """A vector without preference costs the trivial value in groups and flat."""
    for case in ("deepercluster", "deepercluster in groups"):
        task = make(case)
        task.centroids.copy_(F.normalize(torch.eye(4, 16), dim=1))
        task.group_centroids.copy_(torch.eye(16)[8 : 8 + len(task.group_centroids)])
        aloof = torch.eye(16)[15:].expand(3, -1)
        assert task._cross_entropy(aloof, torch.tensor([0, 1, 3])).tolist() == pytest.approx([math.log(4)] * 3)


def test_clusters_have_equal_total_weight():
    """Rare clusters weigh more so that every cluster has the same say."""
    task = make("deepercluster")
    centres = torch.eye(16)[:4]
    vectors = torch.cat([centres[:1].expand(40, -1), centres[1:2].expand(10, -1), centres[2:].repeat_interleave(5, 0)])
    task.cluster(F.normalize(vectors + 0.01 * directions(60), dim=1))
    counts = torch.bincount(task._label(vectors), minlength=4)
    assert sorted(counts.tolist()) == [5, 5, 10, 40]
    assert torch.allclose(task.weights * counts, torch.full((4,), 15.0))


def test_memory_is_clustered_at_intervals_once_filled():
    """The memory is clustered every so many steps once it knows enough."""
    task = make("deepercluster", recluster_every=2)
    before = task.centroids.clone()
    task.newest = [directions(4)]
    task.after_step(1, 10)  # four vectors are too few for four clusters
    assert torch.equal(task.centroids, before)
    task.newest = [directions(12, 1)]
    task.after_step(2, 10)
    assert torch.equal(task.centroids, before)
    task.after_step(3, 10)
    assert not torch.equal(task.centroids, before)


def test_too_small_memory_is_refused():
    """A memory too small to be clustered is refused and the automatic one never is."""
    with pytest.raises(ConfigError, match=r"task.memory is 1024, too few .* 1000 clusters in. Use auto, or 2000"):
        make("deepercluster", clusters=1000, memory=1024)
    for clusters, length in ((4, 256), (64, 1024), (1000, 16000)):
        task = make("deepercluster", clusters=clusters, memory="auto")
        assert len(task.memory.vectors) == task.automatic((16, 20, 24), 100)["memory"] == length


def test_clusters_used_is_reported_after_clustering():
    """The use of clusters is said otherwise once there are some also after a restart."""
    task, pair = make("deepercluster"), {"a": directions(6, 1), "b": directions(6, 2)}
    assert "clusters_used" not in task.compare(pair).terms
    again = make("deepercluster")
    again.load_state_dict(task.state_dict())
    assert "clusters_used" not in again.compare(pair).terms
    task.cluster(directions(24, 3))
    again.load_state_dict(task.state_dict())
    assert again.compare(pair).terms["clusters_used"] == task.compare(pair).terms["clusters_used"] < 1.0


@pytest.mark.parametrize(("clusters", "groups"), [(10, 4), (8, 8)])
def test_indivisible_clusters_are_refused(clusters, groups):
    with pytest.raises(ConfigError, match="groups of two or more"):
        make("deepercluster", clusters=clusters, groups=groups)
