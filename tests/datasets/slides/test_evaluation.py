import attrs
import h5py
import numpy as np
import pytest
import torch

from ipslib.datasets.registry import run_config
from ipslib.datasets.slides import bags
from ipslib.datasets.slides.bags import describe_bags
from ipslib.datasets.slides.camelyon16 import find_annotations
from ipslib.datasets.slides.evaluation import (
    Detections,
    SlideAnswer,
    answer_slides,
    detect,
    detections,
    find_metastases,
    froc,
    hits,
    measure_found,
)
from ipslib.errors import IpslibError
from ipslib.model.ips import evaluating
from ipslib.training import build_network, train


@pytest.fixture(scope="module")
def config(standin, bags):
    data = attrs.asdict(describe_bags(bags, standin.reference))
    fields = {"encoder": "features", "width": 0.125, "n_heads": 4, "position_encoding": False}
    fields |= {"memory_size": 8, "iter_size": 16, "batch_size": 4, "epochs": 1, "warmup_epochs": 0}
    return run_config({"dataset": "slides"} | data | fields)


def oracle(test) -> list[SlideAnswer]:
    """Answers of one who knows where the tumour is."""
    return [
        SlideAnswer(name, int(label), float(label), np.argsort(-there)[:3], there / 2, there)
        for i, (name, label) in enumerate(zip(test.names, test.labels, strict=True))
        for there in [test[i].patch_labels.numpy().astype(float)]
    ]


def test_a_slide_is_answered_as_in_evaluation_and_a_patch_as_a_slide_of_one(config, monkeypatch):
    monkeypatch.setattr(bags, "_ROWS", 50)  # several blocks a bag
    network, test = build_network(config), config.data.open_split("test")
    answers = answer_slides(network, test)
    assert [each.name for each in answers] == test.names and network.training
    first, bag = answers[0], test[0]
    rows = bag.read(torch.arange(bag.n_patches))
    with torch.no_grad(), evaluating(network.modules()):
        output = network(test.batch([0]), generator=torch.Generator().manual_seed(0))
        embedded = network.embed(rows)
        alone = network.heads["tumour"](network.pool(embedded[:, None]).tokens[:, 0])
        together = network.pool(embedded[None]).attn_weights[0].mean(dim=(0, 1))
    logits = output.logits["tumour"][0]
    assert first.score == pytest.approx((logits[1] - logits[0]).item())
    assert first.kept.tolist() == output.selection.indices[0].tolist()
    assert first.tumour == pytest.approx(alone.softmax(dim=1)[:, 1].numpy(), abs=1e-5)
    assert first.attention == pytest.approx(together.numpy(), abs=1e-6)


def test_who_knows_the_tumour_finds_all_of_it(config, standin):
    test = config.data.open_split("test")
    found = measure_found(oracle(test), test)
    assert found[:3] == (1, 1, 1) and 0 < found.kept_tumour_random < 0.2
    outlines = find_annotations(standin.annotations)
    slides = detections(oracle(test), test, outlines, radius=200)
    assert len(slides) == len(test)
    assert sum(each.n_metastases for each in slides) == int(test.labels.sum())
    assert froc(slides).at_rates[0.25] == 1
    # Without an outline a tumour slide is left out, a normal one is not.
    assert len(detections(oracle(test), test, {}, radius=200)) == int((test.labels == 0).sum())


def test_where_no_tumour_is_known_measures_are_blank(tmp_path):
    for name in ("normal_001", "tumor_001"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["features"] = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    train_set = describe_bags(tmp_path).open_split("train")
    answers = [SlideAnswer(name, 0, 0.0, *[np.arange(5)] * 3) for name in train_set.names]
    assert np.isnan(measure_found(answers, train_set)).all()
    assert detections(answers, train_set, {}, radius=200) == []


def test_a_run_goes_on_without_what_cannot_be_read(config, standin, bags, tmp_path):
    """A torn bag and a label without a slide are told, and the rest is trained and answered."""
    for bag in bags.iterdir():
        (tmp_path / bag.name).write_bytes(bag.read_bytes())
    torn = tmp_path / "tumor_502.h5"
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    labels = tmp_path / "reference.csv"
    labels.write_text(standin.reference.read_text() + "test_599,Tumor\n")
    data = describe_bags(tmp_path, labels)
    assert data.bags_sha256 != config.data.bags_sha256
    trained = train(attrs.evolve(config, data=data))
    train_set, test = data.open_split("train"), data.open_split("test")
    for dataset in (train_set, test):
        assert set(dataset.skipped) == {"test_599", "tumor_502"}
        assert "wanted the slide of this label, found none" in dataset.skipped["test_599"]
    assert (len(train_set), len(test)) == (11, 8)
    assert trained.history[-1]["test"]["measures"]["auc"].keys() == {"tumour"}
    assert len(answer_slides(trained.network, test)) == 8


MPP = 8.0  # of the mask


def mask_of(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((200, 200), bool)
    for top, left, height, width in boxes:
        mask[top : top + height, left : left + width] = True
    return mask


NONE = np.zeros((0, 0), int)
LARGE, OTHER, SMALL = (10, 10, 40, 40), (100, 100, 40, 40), (160, 20, 6, 6)  # 320 µm, 48 µm
METASTASES = find_metastases(mask_of(LARGE, OTHER, SMALL), MPP)


def found_at(*found: tuple[int, int, float], regions=METASTASES) -> Detections:
    """Of (row, column) in pixels of the mask, and score."""
    points = np.array([(col, row) for row, col, _ in found]).reshape(-1, 2)
    scores = np.array([score for *_, score in found])
    return Detections(scores, hits(points, regions), regions.max(initial=0))


def test_metastases_are_numbered_and_isolated_cells_told_apart():
    assert set(np.unique(METASTASES)) == {-1, 0, 1, 2} and METASTASES[162, 22] == -1
    grown = METASTASES[30] == METASTASES[30, 30]
    assert np.flatnonzero(grown)[[0, -1]].tolist() == [6, 53]  # 37.5 µm are 4.7 pixels


def test_outlines_less_than_75_microns_apart_are_one_and_holes_are_filled():
    for left, n in ((58, 1), (61, 2)):
        assert find_metastases(mask_of(LARGE, (10, left, 40, 40)), MPP).max() == n
    ring = mask_of(LARGE)
    ring[20:45, 20:45] = False
    assert find_metastases(ring, MPP)[32, 32] == 1
    assert find_metastases(np.zeros((9, 9), bool), MPP).max() == 0


def test_the_curve_by_hand():
    """Two metastases over two slides: found at 0.9 and 0.5, false ones at 0.7, 0.6 and 0.4."""
    tumour = found_at((20, 20, 0.9), (21, 40, 0.8), (120, 120, 0.5), (80, 20, 0.7), (190, 190, 0.4))
    normal = found_at((5, 5, 0.6), regions=NONE)
    curve = froc([tumour, normal])
    assert curve.false_positives.tolist() == [0, 0, 0.5, 1.0, 1.0, 1.5]
    assert curve.sensitivity.tolist() == [0, 0.5, 0.5, 0.5, 1.0, 1.0]
    assert curve.at_rates == {0.25: 0.5, 0.5: 0.5, 1.0: 1.0, 2.0: 1.0, 4.0: 1.0, 8.0: 1.0}
    assert curve.score == pytest.approx(5 / 6)


def test_isolated_cells_neither_help_nor_hurt():
    found = ((20, 20, 0.9), (60, 60, 0.3))
    one, other = froc([found_at(*found)]), froc([found_at(*found, (162, 22, 0.95))])
    assert one.at_rates == other.at_rates and one.score < 1
    only = find_metastases(mask_of(SMALL), MPP)
    with pytest.raises(IpslibError, match="isolated tumour cells"):
        froc([found_at((162, 22, 0.9), regions=only)])


def test_the_ends_of_the_curve_and_what_lies_between_two_rates():
    assert froc([found_at((20, 20, 0.9), (120, 120, 0.9))]).score == 1.0
    assert froc([found_at(), found_at(regions=NONE)]).score == 0.0
    outside = froc([found_at((20, 20, 0.5), (300, 20, 0.9), (-9, 20, 0.8))])
    assert outside.false_positives[-1] == 2
    # One of two found with no false positive, both with one a slide: 3/4 at half of one.
    curve = froc([found_at((20, 20, 0.9), (80, 20, 0.5), (120, 120, 0.5))])
    assert curve.at_rates[0.5] == pytest.approx(0.75)


def test_detections_are_the_best_of_their_neighbourhood():
    coords = np.array([(0, 0), (10, 0), (20, 0), (100, 0), (110, 0)])
    points, scores = detect(np.array([0.2, 0.9, 0.8, 0.1, 0.3]), coords, 10, radius=15)
    assert points.tolist() == [[15, 5], [115, 5]] and scores.tolist() == [0.9, 0.3]
    points, scores = detect(np.array([0.2, 0.9, 0.8, 0.1, 0.3]), coords, 10, radius=5)
    assert scores.tolist() == [0.9, 0.8, 0.3, 0.2, 0.1]
