"""Prepare the next batches while the present one is worked on."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ipslib.errors import IpslibError

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetched(
    function: Callable[[Item], Result], items: Iterable[Item], *, depth: int = 1
) -> Iterator[Result]:
    """Yield `function(item)` of every item, in order, computed ahead by one background thread.

    Items are taken in the caller's thread. An error of the function comes out, with its
    traceback, where its result would have; results before it still come. When the caller stops
    early, what has not begun is dropped and what has begun is awaited.

    Args:
        function: called for one item at a time, never twice at once.
        items: what to call it with.
        depth: results that are made or lie ready while the caller works on another one.

    Raises:
        IpslibError: for a depth below 1.
    """
    if depth < 1:
        raise IpslibError(f"depth: wanted at least 1 result made ahead, got {depth}.")
    ahead: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as executor:
        try:
            for item in items:
                ahead.append(executor.submit(function, item))
                if len(ahead) > depth:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
