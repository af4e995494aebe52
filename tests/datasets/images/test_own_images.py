import itertools
import os
import shutil
from collections import Counter

import attrs
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image

from ipslib.datasets.images import own_images
from ipslib.datasets.images.own_images import OwnImages, describe_images
from ipslib.errors import IpslibError


def write_images(folder, n=12, sides=None):
    """Grey squares on black, bright or dim; the CSV names both classes equally often."""
    rows, sides = [], sides or [40]
    for i in range(n):
        side = sides[i % len(sides)]
        image = np.zeros((side, side), np.uint8)
        image[4:12, 4:12] = 250 if i % 2 else 90
        Image.fromarray(image).save(folder / f"{i}.png")
        rows.append({"image": f"{i}.png", "kind": "bright" if i % 2 else "dim"})
    table = pd.DataFrame(rows)
    table.to_csv(folder / "labels.csv", index=False)
    return table


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path)
    return tmp_path


def rewrite(folder, **columns):
    table = pd.read_csv(folder / "labels.csv").assign(**columns)
    table.to_csv(folder / "labels.csv", index=False)


def described(folder, **fields):
    return describe_images(folder / "labels.csv", **{"patch_size": 10} | fields)


def names_with(first, n=12):
    """A column of images, the first ones called so."""
    return [*first, *(f"{i}.png" for i in range(len(first), n))]


class TestDescribe:
    def test_classes_channels_and_sizes_come_from_the_files(self, folder):
        config = described(folder)
        assert config.classes == {"kind": ["bright", "dim"]} and config.n_classes == {"kind": 2}
        assert (config.in_channels, config.patch_size, config.patch_stride) == (1, 10, 10)
        Image.new("RGB", (20, 20)).save(folder / "0.png")
        rewrite(folder, size=["small", "large", "huge"] * 4)
        assert described(folder).in_channels == 3
        assert described(folder).n_classes == {"kind": 2, "size": 3}

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("0,a\n1,b\n", "suffix"),
            ("0.png,a\n1.png,a\n", "'kind'"),
            ("no.png,a\nnone.png,b\n", "no.png"),
        ],
    )
    def test_a_table_without_images_or_classes_is_refused(self, folder, text, named):
        (folder / "labels.csv").write_text(f"image,kind\n{text}")
        with pytest.raises(IpslibError, match=named):
            described(folder, tasks="kind")
        with pytest.raises(IpslibError, match="none.csv"):
            describe_images(folder / "none.csv")

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"patch_sise": 10}, "'patch_sise'.*patch_size"),
            ({"colour": 0.1}, "colour"),  # of grey images
            ({"tasks": None}, "'tags'.* several"),
            ({"tasks": None, "several": "tags"}, "'size'.* numbers"),
            ({"several": "tags", "numbers": ["size", "flat"]}, "'flat'"),
            ({"several": "tags", "numbers": "kind"}, "'kind'.* line 2"),
            ({"several": "tags", "numbers": "flat"}, "'flat'"),
            ({"several": ["tags", "size"], "numbers": "size"}, "several"),
            ({"several": "tagz"}, "'tagz'.*'tags'"),
            ({"class_weights": {"bright": 3}}, "class_weights"),
            ({"class_weights": {"bright": 3, "dim": 0}}, "class_weights"),
            ({"class_weights": {"bright": 3, "dim": "1"}}, "class_weights"),
            ({"class_weights": {"size": {"1": 1.0}}, "numbers": "size"}, "class_weights"),
            ({"class_weights": "even"}, "class_weights"),
            ({"class_weights": "balanced", "tasks": "size", "numbers": "size"}, "class_weights"),
            ({"class_weights": "balanced", "balanced_sampling": "kind"}, "balanced_sampling"),
            ({"balanced_sampling": "size", "numbers": "size"}, "balanced_sampling"),
            ({"balanced_sampling": "kind", "several": "kind"}, "balanced_sampling"),
            ({"balanced_sampling": "kinds"}, "balanced_sampling"),
        ],
        ids=str,
    )
    def test_what_makes_no_sense_is_refused_and_never_guessed(self, folder, fields, named):
        rewrite(folder, tags=["a|b", "b"] * 6, size=np.arange(12) / 4, flat=0.12)
        with pytest.raises(IpslibError, match=named):
            described(folder, **{"tasks": "kind"} | fields)


class TestOneImageTwice:
    @pytest.mark.parametrize(
        "spelling", ["0.png", "./0.png", "sub/../0.png", "{folder}/0.png", "link.png", "hard.png",
                     "0.PNG", ".\\\\0.png"],
    )  # fmt: skip
    @pytest.mark.parametrize("other", [0, 1])
    def test_it_is_refused_however_it_is_spelt(self, folder, spelling, other):
        (folder / "sub").mkdir()
        (folder / "link.png").symlink_to(folder / "0.png")
        (folder / "hard.png").hardlink_to(folder / "0.png")
        names = [f"{i}.png" for i in range(12)]
        names[6 + other] = spelling.format(folder=folder)  # of the same kind, or the other one
        rewrite(folder, image=names)
        with pytest.raises(IpslibError, match=f"line 2, .*line {8 + other},") as refused:
            described(folder)
        assert ("kind" in str(refused.value).rpartition("with other labels")[2]) == bool(other)

    def test_two_files_whose_names_differ_in_capitals_are_two(self, folder):
        if (folder / "LABELS.CSV").exists():
            pytest.skip("capitals do not count here")
        for name in ("a.png", "A.png"):
            Image.new("L", (40, 40)).save(folder / name)
        rewrite(folder, image=names_with(["a.png", "A.png"]))
        assert OwnImages(described(folder)).skipped == ()

    @pytest.mark.parametrize(
        ("stored", "named"),
        [
            *itertools.product(["\u00e4/\u00fc.png", "a\u0308/u\u0308.png"], repeat=2),  # a Mac's
            ("sub/0.png", "sub\\0.png"),  # Windows'
        ],
    )
    def test_names_are_understood_as_other_systems_write_them(self, folder, stored, named):
        (folder / stored).parent.mkdir()
        (folder / "0.png").rename(folder / stored)
        rewrite(folder, image=names_with([named]))
        assert OwnImages(described(folder)).skipped == ()


def parts(config, names=("train", "test", "validation")):
    return [OwnImages(config, name) for name in names]


class TestSplit:
    def test_without_a_column_shares_of_each_class_test_and_validate(self, tmp_path):
        write_images(tmp_path, n=60)
        rewrite(tmp_path, kind=["a"] * 10 + ["b"] * 20 + ["c"] * 30)
        train, test, held = parts(described(tmp_path, validation=0.25))
        assert len(train) == 36 and len({*train.names, *test.names, *held.names}) == 60
        for each in (test, held):
            assert Counter(each.labels("kind")) == {"a": 2, "b": 4, "c": 6}
            assert each.chance == {"kind": 0.5}
        same, other = (described(tmp_path, split_seed=seed) for seed in (0, 1))
        assert OwnImages(same, "test").names == test.names  # whatever validates
        assert OwnImages(other, "test").names != test.names

    def test_too_few_of_a_class_is_told(self, folder):
        rewrite(folder, kind=["one"] + ["other"] * 11)
        with pytest.raises(IpslibError, match="kind.*'one': 1"):
            OwnImages(described(folder))

    @pytest.mark.parametrize(
        ("n_groups", "validation", "sizes"),  # as near to a fifth, 9.6, as whole groups allow
        [(2, 0, [24, 24]), (3, 0, [32, 16]), (12, 0, [40, 8]), (12, 0.2, [32, 8, 8])],
    )
    def test_groups_are_never_torn(self, tmp_path, n_groups, validation, sizes):
        write_images(tmp_path, n=48)
        rewrite(tmp_path, patient=[f"P{i // 2 % n_groups}" for i in range(48)])
        config = described(tmp_path, validation=validation)
        assert list(config.classes) == ["kind"] and config.group == "patient"
        images = parts(config, ("train", "test", "validation")[: len(sizes)])
        assert [*map(len, images)] == sizes
        assert sum(len({*each.labels("patient")}) for each in images) == n_groups
        assert all({*each.labels("kind")} == {"bright", "dim"} for each in images)

    def test_too_few_groups_and_a_part_that_was_not_asked_for_are_refused(self, tmp_path):
        write_images(tmp_path, n=24)
        rewrite(tmp_path, patient=[f"P{i // 12}" for i in range(24)])
        with pytest.raises(IpslibError, match="validation"):
            len(OwnImages(described(tmp_path, validation=0.2)))
        with pytest.raises(IpslibError, match="split"):
            len(OwnImages(described(tmp_path), "validation"))

    def test_a_class_that_only_tests_is_refused_and_one_that_only_trains_is_said(self, folder):
        split = ["train"] * 9 + ["test"] * 3
        rewrite(folder, split=split, kind=["a", "b"] * 4 + ["a", "c", "a", "a"])
        with pytest.raises(IpslibError, match="kind.* c"):
            len(OwnImages(described(folder)))
        rewrite(folder, split=split, kind=["a", "b", "c"] * 3 + ["a", "b", "a"])
        images = OwnImages(described(folder))
        assert any("kind c" in note for note in images.notes)

    def test_the_same_bytes_in_both_parts_are_said(self, folder):
        rng = np.random.default_rng(0)
        for i in range(12):
            pixels = rng.integers(0, 255, (40, 40), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
        rewrite(folder, split=["train"] * 8 + ["test"] * 4)
        assert OwnImages(described(folder)).notes == ()
        shutil.copy(folder / "2.png", folder / "9.png")
        notes = OwnImages(described(folder)).notes
        assert len(notes) == 1 and "9.png = 2.png" in notes[0]


class TestImages:
    def test_images_of_many_sizes_make_one_batch_of_pixels_and_labels(self, tmp_path):
        write_images(tmp_path, sides=[40, 60])
        data = OwnImages(described(tmp_path), "train")
        batch, kinds = data.batch(range(len(data))), data.labels("kind")
        assert {part.n_patches for part in batch.parts} == {16, 36}
        assert [data.config.classes["kind"][i] for i in batch.labels["kind"]] == kinds
        light = batch.read(torch.arange(len(data)), torch.zeros(len(data), dtype=torch.long))
        squares = {"bright": 250, "dim": 90}
        assert light[:, 0, 4:, 4:].amin(dim=(1, 2)).tolist() == [squares[kind] for kind in kinds]

    def test_what_cannot_be_read_is_left_out_and_named(self, folder):
        (folder / "3.png").write_bytes(b"no image")
        (folder / "5.png").unlink()
        np.save(folder / "7.npy", np.zeros((40, 40, 2), np.uint8))
        rewrite(folder, image=[f"{i}.{'npy' if i == 7 else 'png'}" for i in range(12)])
        train, test = parts(described(folder, test_share=0.25), ("train", "test"))
        assert len(train) + len(test) == 9
        assert [each[:5] for each in sorted(train.skipped)] == ["3.png", "5.png", "7.npy"]

    @pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "npy"])
    def test_a_file_that_was_cut_off_is_left_out_though_its_head_is_sound(self, folder, suffix):
        pixels = np.random.default_rng(0).integers(0, 255, (200, 300), dtype=np.uint8)
        path = folder / f"x.{suffix}"
        np.save(path, pixels) if suffix == "npy" else Image.fromarray(pixels).save(path)
        rewrite(folder, image=names_with([path.name]))
        assert OwnImages(described(folder)).skipped == ()
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        images = OwnImages(described(folder))
        assert len(images.skipped) == 1 and images.skipped[0].startswith(path.name)
        assert len(images) + len(OwnImages(images.config, "test")) == 11

    def test_what_is_no_number_is_left_out_with_its_place(self, folder):
        light = np.full((400, 400), 0.5, np.float32)
        light[390, 17] = np.nan
        np.save(folder / "x.npy", light)
        tifffile.imwrite(folder / "y.tif", light, tile=(64, 64))
        rewrite(folder, image=names_with(["x.npy", "y.tif"]))
        skipped = OwnImages(described(folder)).skipped
        assert [each[:5] for each in skipped] == ["x.npy", "y.tif"]
        assert all("row 390, column 17" in each for each in skipped)

    def test_an_image_is_opened_once_as_long_as_it_stands(self, folder, monkeypatch):
        opened, open_source = Counter(), own_images.open_source
        monkeypatch.setattr(
            own_images,
            "open_source",
            lambda image, **cut: opened.update([image.name]) or open_source(image, **cut),
        )
        config = described(folder)
        assert len(OwnImages(config)) + len(OwnImages(config, "test")) == 12
        assert set(opened.values()) == {1}
        os.utime(folder / "3.png", ns=(0, 0))
        described(folder)
        assert opened["3.png"] == 2 and opened["4.png"] == 1

    def test_what_it_is_made_of_belongs_to_its_identity(self, folder):
        before = described(folder)
        times = (folder / "3.png").stat().st_atime_ns, (folder / "3.png").stat().st_mtime_ns
        image = np.array(Image.open(folder / "3.png"))
        Image.fromarray(np.rot90(image).copy()).save(folder / "3.png")
        os.utime(folder / "3.png", ns=times)
        after = described(folder)
        assert attrs.evolve(after, images_sha256=before.images_sha256) == before != after
        with pytest.raises(IpslibError, match="images"):
            len(OwnImages(before))
        os.utime(folder / "4.png", ns=(1, 1))
        assert described(folder) == after
        (folder / "5.png").unlink()
        assert described(folder) != after


class TestPixels:
    """Images differ from file to file: everything that shows light is read, on one scale."""

    def test_kinds_of_pixels_may_mix(self, folder):
        for i in range(6):
            grey = np.asarray(Image.open(folder / f"{i}.png"))
            colour = np.asarray(Image.fromarray(grey).convert("RGB"))
            kinds = (colour, grey.astype(np.uint16) * 257, grey.astype(np.float32) / 255)
            tifffile.imwrite(folder / f"{i}.png", kinds[i % 3])
        data = OwnImages(described(folder), "train")
        batch, first = data.batch(range(len(data))), torch.zeros(len(data), dtype=torch.long)
        read = batch.read(torch.arange(len(data)), first)
        assert not data.skipped and read.shape[1] == 3
        for patch, kind in zip(read, data.labels("kind"), strict=True):
            assert patch.max().item() == pytest.approx((250 if kind == "bright" else 90) / 255)

    def test_bands_are_channels_and_what_is_not_like_most_is_left_out(self, tmp_path):
        write_images(tmp_path)
        for i in range(1, 12):
            bands = np.zeros((40, 40, 5), np.uint8)
            tifffile.imwrite(tmp_path / f"{i}.png", bands, planarconfig="contig")
        config = described(tmp_path)
        assert config.in_channels == 5
        (sentence,) = OwnImages(config, "train").skipped
        assert "0.png" in sentence and "5 channels" in sentence


BOX = {"x": 4, "y": 4, "width": 8, "height": 8}  # of the square in every image


def write_boxes(folder, names, **box):
    table = pd.DataFrame({"image": names}).assign(**BOX | box)
    table.to_csv(folder / "boxes.csv", index=False)
    return folder / "boxes.csv"


class TestAugmented:
    @pytest.fixture
    def images(self, folder):
        boxes = write_boxes(folder, [f"{i}.png" for i in range(12)])
        options = {"flips": "both", "rotations": True, "brightness": 0.3, "test_share": 0.1}
        return OwnImages(described(folder, boxes=boxes, **options))

    def read(self, images, index):
        batch = images.batch([index])
        return batch.read(torch.zeros(16, dtype=torch.long), torch.arange(16))

    def test_it_follows_seed_epoch_and_image_and_is_the_set_again_without(self, images):
        one, again = (images.augmented(seed=1, epoch=2) for _ in range(2))
        for i in range(len(images)):
            assert torch.equal(self.read(one, i), self.read(again, i))
        drawn = {one.augmentation(i) for i in range(len(images))}
        drawn |= {images.augmented(seed=s, epoch=e).augmentation(0) for s, e in ((1, 3), (2, 2))}
        assert len(drawn) == len(images) + 2 and len({turn for turn, *_ in drawn}) > 3
        assert images.augmentation(0) == (1, (), (0, 0))

    @pytest.mark.parametrize("translate", [0, 6])
    def test_boxes_lie_on_the_squares_of_every_epoch(self, images, translate):
        images = OwnImages(attrs.evolve(images.config, translate=translate))
        for epoch in range(4):
            moved = images.augmented(seed=0, epoch=epoch)
            for i in range(len(images)):
                [(top, left, height, width)] = moved.boxes(i)
                light = self.read(moved, i).view(4, 4, 10, 10).transpose(1, 2).reshape(40, 40)
                inside = light[top : top + height, left : left + width]
                assert len(np.unique(inside)) == 1 and inside.max() > light.min()
                assert (light == inside.max()).sum() == height * width

    def test_only_training_is_augmented(self, images):
        with pytest.raises(IpslibError, match="split"):
            OwnImages(images.config, "test").augmented(seed=0, epoch=1)


class TestBoxes:
    def test_a_batch_has_those_of_each_image_and_zeros_behind(self, folder):
        path = write_boxes(folder, ["0.png", "0.png", "1.png"], split="x")
        rewrite(folder, split=["train"] * 8 + ["test"] * 4)
        batch = OwnImages(described(folder, boxes=path)).batch([0, 1, 2])
        assert batch.boxes.tolist() == [[[4, 4, 8, 8]] * 2, [[4, 4, 8, 8], [0] * 4], [[0] * 4] * 2]
        assert [grid.canvas for grid in batch.grids] == [(40, 40)] * 3

    def test_those_of_no_image_are_said_and_those_beside_theirs_refused(self, folder):
        images = OwnImages(described(folder, boxes=write_boxes(folder, ["0.png", "x.png"], x=36)))
        assert ["1 boxes" in note for note in images.notes[-2:]] == [True, True]
        for names, box in ((["x.png"], {}), (["0.png"], {"x": 40})):
            with pytest.raises(IpslibError, match="boxes.csv"):
                len(OwnImages(described(folder, boxes=write_boxes(folder, names, **box))))

    def test_they_belong_to_the_run_as_labels_do(self, folder):
        config = described(folder, boxes=write_boxes(folder, ["0.png"]))
        labels = described(folder)
        write_boxes(folder, ["0.png"], x=5)
        with pytest.raises(IpslibError, match="boxes"):
            len(OwnImages(config))
        rewrite(folder, kind=["bright", "dim"] * 6)
        with pytest.raises(IpslibError, match="labels"):
            len(OwnImages(labels))


class TestTasks:
    def test_sets_are_multi_hot_and_numbers_standardised(self, folder):
        tags = ["a|b", "b | a", "|", "c"] * 3
        rewrite(folder, tags=tags, size=np.arange(12) / 4 + 0.5)
        config = described(folder, several="tags", numbers=["size"], test_share=0.34)
        assert config.n_classes == {"kind": 2, "tags": 3, "size": 1}
        data = OwnImages(config)
        labels = data.batch(range(len(data))).labels
        rows = {"a|b": [1, 1, 0], "": [0, 0, 0], "c": [0, 0, 1]}
        assert labels["tags"].tolist() == [rows[cell] for cell in data.labels("tags")]
        sizes = np.array(data.labels("size"), float)
        assert labels["size"].dtype == torch.float32
        expected = (sizes - sizes.mean()) / sizes.std()
        assert labels["size"].tolist() == pytest.approx(expected.tolist(), abs=1e-6)
        assert data.deviations == {"size": pytest.approx(sizes.std())}
        assert list(data.chance) == ["kind", "tags"]

    def test_parts_have_their_share_of_every_label_and_of_numbers(self, tmp_path):
        write_images(tmp_path, n=60)
        tags = ["a|b"] * 20 + ["b"] * 20 + ["|"] * 20
        rewrite(tmp_path, tags=tags, size=np.arange(60) / 7)
        of_sets = described(tmp_path, tasks="tags", several="tags")
        found = Counter(OwnImages(of_sets, "test").labels("tags"))
        assert all(3 <= found[tags] <= 5 for tags in ("a|b", "b", ""))
        of_numbers = described(tmp_path, tasks="size", numbers="size", validation=0.25)
        assert [*map(len, parts(of_numbers))] == [36, 12, 12]


class TestBalance:
    def test_weights_make_classes_count_alike(self, folder):
        rewrite(folder, kind=["a"] * 9 + ["b"] * 3, tags=["u|v", "u", "u"] * 4)
        rewrite(folder, split=(["train", "train", "test"] * 4))
        data = OwnImages(described(folder, several="tags", class_weights="balanced"))
        assert data.batch([0]).class_weights is data.class_weights
        n_images = Counter(data.labels("kind"))
        weights = data.class_weights["kind"].tolist()
        assert weights == pytest.approx([8 / (2 * n_images[name]) for name in "ab"])
        assert data.class_weights["tags"].tolist() == pytest.approx([1 / 8, 1])  # v: 4 of 8

    def test_they_may_be_given(self, folder):
        for weights in ({"bright": 3, "dim": 1}, {"kind": {"bright": 3.0, "dim": 1.0}}):
            config = described(folder, class_weights=weights)
            assert config.class_weights == {"kind": {"bright": 3.0, "dim": 1.0}}
            assert OwnImages(config).class_weights["kind"].tolist() == [3, 1]

    def test_sampling_draws_classes_alike(self, folder):
        rewrite(folder, kind=["a"] * 9 + ["b"] * 3)
        weights = OwnImages(described(folder, balanced_sampling="kind")).sampling_weights
        data = OwnImages(described(folder))
        assert data.sampling_weights is None and data.class_weights == {}
        is_a = torch.tensor([kind == "a" for kind in data.labels("kind")])
        assert weights[is_a].sum().item() == pytest.approx(weights[~is_a].sum().item())
