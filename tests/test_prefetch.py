import threading
import time
import traceback

import pytest
import torch

from ipslib.datasets.megapixel_mnist.dataset import MegapixelMNIST
from ipslib.errors import IpslibError
from ipslib.prefetch import prefetched

_PATIENCE_S = 10


def background_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("prefetch")]


@pytest.fixture(autouse=True)
def no_thread_stays():
    yield
    assert not background_threads()


@pytest.mark.parametrize("depth", [1, 2, 50])
@pytest.mark.parametrize("n", [0, 1, 2, 7])
def test_all_results_come_in_order(n, depth):
    def slower_at_first(item: int) -> int:
        time.sleep(0.01 / (item + 1))
        return item * item

    assert list(prefetched(slower_at_first, range(n), depth=depth)) == [i * i for i in range(n)]


@pytest.mark.parametrize("depth", [1, 2])
def test_so_many_are_made_ahead_and_no_more(depth):
    begun = [threading.Event() for _ in range(10)]
    results = prefetched(lambda item: begun[item].set(), range(10), depth=depth)
    for item, _ in enumerate(results):
        if item + depth < 10:
            assert begun[item + depth].wait(_PATIENCE_S)  # while the caller holds this one
        assert not any(event.is_set() for event in begun[item + depth + 1 :])


def test_one_thread_beside_the_callers_makes_them_all_and_items_are_taken_in_the_callers():
    takers, makers = set(), set()

    def items():
        for item in range(5):
            takers.add(threading.get_ident())
            yield item

    list(prefetched(lambda item: makers.add(threading.get_ident()), items(), depth=2))
    assert takers == {threading.get_ident()}
    assert len(makers) == 1 and not makers & takers


def test_an_error_comes_in_its_turn_with_its_traceback():
    def fails_at_two(item: int) -> int:
        if item == 2:
            raise ValueError("no such image")
        return item

    results, seen = prefetched(fails_at_two, range(6), depth=2), []
    with pytest.raises(ValueError, match="no such image") as raised:
        seen.extend(results)
    assert seen == [0, 1]
    assert "fails_at_two" in [frame.name for frame in traceback.extract_tb(raised.tb)]
    assert next(results, "nothing more") == "nothing more"


def test_an_error_among_the_items_is_the_callers():
    def items():
        yield 0
        raise KeyError("order")

    with pytest.raises(KeyError, match="order"):
        list(prefetched(str, items()))


def test_when_the_caller_stops_early_what_has_begun_ends_and_nothing_more_begins():
    begun, may_end, ended = threading.Event(), threading.Event(), []

    def make(item: int) -> int:
        if item:
            begun.set()
            assert may_end.wait(_PATIENCE_S)
        ended.append(item)
        return item

    results = prefetched(make, range(10), depth=3)
    assert next(results) == 0 and begun.wait(_PATIENCE_S)
    threading.Timer(0.05, may_end.set).start()
    results.close()
    assert ended == [0, 1]


def test_an_error_of_the_caller_stops_it_too():
    def work() -> None:
        for _ in prefetched(str, range(1000)):
            raise RuntimeError("the step failed")

    with pytest.raises(RuntimeError, match="the step failed") as raised:
        work()
    traceback.clear_frames(raised.tb)  # the frame that holds the iterator


def test_batches_made_ahead_are_the_same(small_data):
    dataset = MegapixelMNIST(small_data(), "train")
    orders = torch.randperm(12).view(4, 3)
    for order, batch in zip(orders, prefetched(dataset.batch, orders.tolist()), strict=True):
        alone = MegapixelMNIST(small_data(), "train").batch(order.tolist())
        image, patch = (~alone.blank).nonzero(as_tuple=True)
        assert torch.equal(batch.blank, alone.blank)
        assert torch.equal(batch.read(image, patch), alone.read(image, patch))
        assert all(torch.equal(batch.labels[task], alone.labels[task]) for task in alone.labels)


@pytest.mark.parametrize("depth", [0, -1])
def test_nothing_made_ahead_is_refused(depth):
    with pytest.raises(IpslibError, match=f"depth: wanted at least 1 .*, got {depth}"):
        next(prefetched(str, range(3), depth=depth))
