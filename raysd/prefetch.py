"""Batches made ahead of time by a background thread, so that training waits for no disk and no copying."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from queue import SimpleQueue
from typing import Any, TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")

AHEAD = 3
"""Batches that are made, or being made, before they are asked for."""
_END = object()


@contextmanager
def prefetched(
    items: Iterable[Item], tensors: Callable[[Item], Iterable[Tensor]], device: torch.device, ahead: int = AHEAD
) -> Iterator[Iterator[Item]]:
    """What `items` gives, in its order, made by a thread that ends with the context, however that ends.

    An error of `items` is raised where the piece is asked for that it prevented. Grad mode and autocast are a thread's
    own: `items` starts with torch's defaults. On a GPU it works on a stream of its own, and `tensors` has to name what
    it made there.
    """
    room, over, made = threading.Semaphore(ahead - 1), threading.Event(), SimpleQueue[Any]()
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    if stream is not None:
        stream.wait_stream(torch.cuda.current_stream(device))  # whatever `items` reads may still be on its way

    threads = max(1, torch.get_num_threads() // 2)

    def work() -> None:
        if device.type == "cpu":
            torch.set_num_threads(threads)  # of this thread: two full pools on the same cores wait for each other
        try:
            with _on(stream):
                for item in items:
                    made.put((item, None if stream is None else stream.record_event()))
                    room.acquire()
                    if over.is_set():
                        return
            made.put(_END)
        except BaseException as error:
            made.put(error)

    def taken() -> Iterator[Item]:
        while (got := made.get()) is not _END:
            if isinstance(got, BaseException):
                raise got
            room.release()
            item, ready = got
            if ready is not None:
                here = torch.cuda.current_stream(device)
                here.wait_event(ready)
                for tensor in tensors(item):
                    tensor.record_stream(here)  # its memory is not used again before this stream is done with it
            yield item

    thread = threading.Thread(target=work, name="raysd-prefetch", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        over.set()
        room.release()
        thread.join()


def _on(stream: "torch.cuda.Stream | None") -> AbstractContextManager[object]:
    return nullcontext() if stream is None else torch.cuda.stream(stream)
