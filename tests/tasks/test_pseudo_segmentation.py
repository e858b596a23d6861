import math

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2
from small_world import SmallEncoder, SmallRegion, phantoms, trained

from medssl.pretext.kmeans import euclidean_kmeans, nearest_centroid, squared_distances
from medssl_tasks.pseudo_segmentation import PseudoSegmentation

SHAPE = (16, 20, 12)


def blobs(seed=0):
    random = np.random.default_rng(seed)
    centres = np.array([[0.0, 0.0, 0.0], [5.0, 0.0, 1.0], [0.0, 6.0, 2.0], [4.0, 5.0, -6.0]])
    return torch.tensor(np.concatenate([c + random.normal(0, 0.4, (50, 3)) for c in centres]), dtype=torch.float64)


def make(**settings):
    torch.manual_seed(0)
    return PseudoSegmentation(SmallEncoder(), PseudoSegmentation.Config(**settings))


def test_squared_distances_match_naive_loop():
    vectors, centroids = torch.randn(7, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    naive = [[float(((v - c) ** 2).sum()) for c in centroids] for v in vectors]
    assert squared_distances(vectors, centroids).flatten().tolist() == pytest.approx(np.ravel(naive))


def test_euclidean_kmeans_matches_scipy():
    """Clusters are those that scipy finds from the same start."""
    vectors = blobs()
    found = euclidean_kmeans(vectors, 4, iterations=20)
    theirs, _ = kmeans2(vectors.numpy(), euclidean_kmeans(vectors, 4, iterations=0).numpy(), minit="matrix", iter=20)
    assert found.numpy() == pytest.approx(theirs)
    assert torch.bincount(nearest_centroid(vectors, found)).tolist() == [50] * 4


def test_kmeans_leaves_no_cluster_empty():
    """No cluster stays empty while there are vectors enough."""
    vectors = torch.cat([torch.zeros(30, 2), torch.tensor([[9.0, 0.0], [0.0, 9.0]])])
    found = euclidean_kmeans(vectors, 3, iterations=5)
    assert sorted(torch.bincount(nearest_centroid(vectors, found), minlength=3).tolist()) == [1, 1, 30]


def test_clusters_by_brightness_alone():
    """Without place the clusters of two brightnesses are the two halves of the scan."""
    volume = torch.ones(2, 1, *SHAPE)
    volume[:, :, :, :10] = -1.0
    subject = make(clusters=2, position_weight=0.0).train()
    views = subject.views(SmallRegion(volume))
    subject(views)
    clusters = subject(views).pictures["clusters"][:, 0]
    assert len(clusters[:, :, :9].unique()) == len(clusters[:, :, 11:].unique()) == 1
    assert clusters[0, 0, 0, 0] != clusters[0, 0, 19, 0]


def test_evaluation_before_training_keeps_first_clustering():
    """A look at the task before training does not keep the first map from being made."""
    subject = make(clusters=4)
    views = subject.views(SmallRegion(phantoms(2, SHAPE)))
    uniform = subject.eval()(views).trivial_loss
    assert uniform == pytest.approx(math.log(4))
    before = subject.centroids.clone()
    assert subject.train()(views).trivial_loss < uniform
    assert not torch.equal(subject.centroids, before)


def test_resumed_training_keeps_clusters():
    subject = make(clusters=4).train()
    views = subject.views(SmallRegion(phantoms(2, SHAPE)))
    subject(views)
    resumed = make(clusters=4).train()
    resumed.load_state_dict(subject.state_dict())
    resumed(views)
    assert torch.equal(resumed.centroids, subject.centroids)


def test_positions_span_scan_edges():
    """The place runs from edge to edge of the scan wherever the patch lies."""
    region = SmallRegion(phantoms(2, SHAPE))
    region.scan_shape = torch.tensor([[32.0, 20.0, 12.0]] * 2)
    shift = torch.tensor([[8.0], [0.0], [0.0]])
    region.matrix = lambda name: torch.cat([torch.eye(3), shift], dim=1).expand(2, 3, 4)
    places = make(position_weight=1.0).views(region)["descriptors"][:, -3:]
    d = [(2 * (8 + i) + 1) / 32 - 1 for i in range(16)]
    assert places[0, 0, :, 3, 3].tolist() == pytest.approx(d)
    assert places[0, 1, 3, :, 3].tolist() == pytest.approx([(2 * i + 1) / 20 - 1 for i in range(20)])
    assert places[0, 2].abs().max() < 1


def test_descriptors_do_not_darken_at_patch_edge():
    """The edge of a patch does not look darker than its middle."""
    subject = make(position_weight=0.0)
    descriptors = subject.views(SmallRegion(torch.full((2, 1, *SHAPE), 3.0)))["descriptors"]
    assert descriptors[:, 1:].flatten().tolist() == pytest.approx([3.0] * descriptors[:, 1:].numel(), rel=1e-4)


def test_padding_is_neither_clustered_nor_scored():
    """What lies beyond the scan is neither clustered nor scored."""
    volume, valid = phantoms(2, SHAPE), torch.ones(2, 1, *SHAPE, dtype=torch.bool)
    valid[..., 8:] = False
    volume[~valid] = 1e3
    subject = make(mask_ratio=0.0, intensity=0.0)
    views = subject.views(SmallRegion(volume, valid=valid))
    assert views["sampled"][..., 0].max() < 100
    before = subject(views).loss.item()
    views["descriptors"] = torch.where(valid, views["descriptors"], -5.0)
    assert subject(views).loss.item() == pytest.approx(before)


def test_clusters_are_fixed_after_recluster_fraction():
    subject = make(recluster_fraction=0.25)
    views = subject.views(SmallRegion(phantoms(2, SHAPE)))
    moved = []
    for step in range(16):
        before = subject.centroids.clone()
        subject(views)
        subject.after_step(step, 16)
        moved.append(not torch.equal(before, subject.centroids))
    assert not any(moved[4:])
    assert moved[0]


def test_trivial_loss_is_entropy_of_map():
    """It learns and the trivial loss is the entropy of the map."""
    subject = make(clusters=6)
    views = subject.views(SmallRegion(phantoms(4, SHAPE)))
    losses = trained(subject, views, 40)
    step = subject(views)
    shares = torch.bincount((step.pictures["clusters"] * 5).round().long().flatten(), minlength=6) / (4 * 16 * 20 * 12)
    assert step.trivial_loss == pytest.approx(-float((shares * shares.log()).sum()), rel=0.05)
    assert losses[-1] < 0.6 * step.trivial_loss < step.trivial_loss <= math.log(6)
    assert (step.energy < step.negative_energy).all()
