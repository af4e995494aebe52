import attrs
import h5py
import numpy as np
import pytest
import torch

from ipslib.datasets.registry import run_config
from ipslib.datasets.slides import evaluation
from ipslib.datasets.slides.camelyon16 import find_annotations
from ipslib.datasets.slides.evaluation import SlideAnswer, answer_slides, detections, measure_found
from ipslib.datasets.slides.metrics import froc
from ipslib.datasets.slides.sets import describe_bags
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
    monkeypatch.setattr(evaluation, "_ROWS", 50)  # several blocks a bag
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
    assert sum(each.metastases is not None for each in slides) == int(test.labels.sum())
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
