import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from ipslib.datasets.slides.annotations import Outlines, read_asap, tumour_mask
from ipslib.datasets.slides.bags import BagDataset
from ipslib.datasets.slides.camelyon16 import (
    NOT_EXHAUSTIVE,
    REMOVED,
    find_slides,
    label_slides,
    read_labels,
)
from ipslib.datasets.slides.evaluation import find_metastases
from ipslib.datasets.slides.slide import Slide
from ipslib.datasets.slides.synthetic import draw_slide, write_synthetic
from ipslib.datasets.synthetic import is_synthetic
from ipslib.errors import IpslibError

from .conftest import SMALL


def test_it_is_marked_as_drawn_and_no_slide_has_a_real_name(standin, tmp_path):
    assert is_synthetic(standin.images) and is_synthetic(standin.images.parent)
    assert not is_synthetic(tmp_path)
    names = set(find_slides(standin.images))
    assert len(names) == 20 and not names & (NOT_EXHAUSTIVE | REMOVED.keys())
    assert min(int(name.split("_")[1]) for name in names) > 160


def test_writing_again_changes_nothing_and_other_arguments_are_refused(standin, tmp_path):
    folder = standin.images.parent
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write_synthetic(folder, **SMALL) == standin
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with pytest.raises(IpslibError, match="something else"):
        write_synthetic(folder, **SMALL | {"seed": 1})


def test_slides_are_the_same_for_one_seed_only():
    one, same, other = (
        draw_slide(128, np.random.Generator(np.random.PCG64(seed)), has_tumour=True)[0]
        for seed in (0, 0, 1)
    )
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_outlines_enclose_darker_tissue_and_holes_do_not(standin):
    for name in ("tumor_501", "tumor_503", "test_502"):
        image = Slide(standin.images / f"{name}.tif").overview(4.0).mean(axis=2)
        outlines = read_asap(standin.annotations / f"{name}.xml")
        inside = tumour_mask(outlines, (512, 512), 1)
        tissue = (image < 215) & ~inside
        assert image[inside].mean() < image[tissue].mean() - 15
        assert 0.004 < inside.mean() < 0.03
        cut = tumour_mask(Outlines(outlines.cut_out, []), (512, 512), 1)
        assert cut.any() == (name == "tumor_503") and (not cut.any() or image[cut].mean() > 160)


def test_only_tumour_slides_are_outlined_and_their_tumours_count_for_froc(standin):
    labels = label_slides(find_slides(standin.images), read_labels(standin.reference))[0]
    outlined = {path.stem for path in standin.annotations.iterdir()}
    assert outlined == {name for name, label in labels.items() if label}
    for name in outlined:
        outlines = read_asap(standin.annotations / f"{name}.xml")
        found = find_metastases(tumour_mask(outlines, (512, 512), 2), 8.0)
        assert set(np.unique(found)) == {0, 1}


def test_features_tell_tumour_slides_from_normal_ones(standin, bags):
    """Colour is enough for it, and a random network keeps colour."""
    labels = label_slides(find_slides(standin.images), read_labels(standin.reference))[0]
    dataset = BagDataset(bags, labels)
    most = [dataset[i].read(torch.arange(dataset[i].n_patches)) for i in range(len(dataset))]
    pooled = np.stack([np.r_[rows.amax(0), rows.amin(0)] for rows in most])
    is_test = np.array([name.startswith("test") for name in dataset.names])
    scaled = StandardScaler().fit(pooled[~is_test]).transform(pooled)
    model = LogisticRegression(max_iter=1000).fit(scaled[~is_test], dataset.labels[~is_test])
    scores = model.decision_function(scaled[is_test])
    assert roc_auc_score(dataset.labels[torch.from_numpy(is_test)].numpy(), scores) >= 0.9
