"""Counts the bytes of live tensors exactly, on any device, also for tensors without data."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["LiveMemory"]


class LiveMemory(TorchDispatchMode):
    """Peak over time of sum of bytes(storage), over the storages that PyTorch's operations made inside the block.

    A storage counts once, however many views it has, from the operation that makes it until it is freed, also in the
    backward pass. Gradients count as they are made inside; tensors from before the block, such as parameters and a
    loaded image, do not, nor do their views. The buffers that a kernel keeps to itself (workspaces of convolutions)
    and the allocator's reserve are not seen. On the device "meta" and for fake tensors nothing is computed: the
    figure of a volume of any size takes seconds.

    Attributes:
        current_bytes: bytes alive now.
        peak_bytes: largest ``current_bytes`` so far.

    Source:
        Not in the paper, which reports the memory of the process.

    Example:
        >>> with LiveMemory() as memory:
        ...     x = torch.zeros(256, device="meta")
        ...     y = x + 1
        ...     del x
        ...     z = y.view(16, 16)
        >>> memory.peak_bytes, memory.current_bytes
        (2048, 1024)
    """

    def __init__(self) -> None:
        super().__init__()
        self.current_bytes = 0
        self.peak_bytes = 0
        self._bytes: dict[int, int] = {}
        self._alive: dict[int, weakref.ref] = {}
        self._resize: Callable | None = None

    def __enter__(self) -> LiveMemory:
        # a storage that is resized by hand, as memcnn does, passes no operation
        resize = self._resize = torch.UntypedStorage.resize_

        def resize_and_count(storage: torch.UntypedStorage, size: int) -> Any:
            result = resize(storage, size)
            if storage._cdata in self._bytes:
                self._set(storage._cdata, storage.nbytes())
            return result

        torch.UntypedStorage.resize_ = resize_and_count  # type: ignore[method-assign, assignment]
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign, assignment]
        super().__exit__(*exception)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, torch.Tensor):
                self._register(tensor, made_here=False)
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._register(tensor, made_here=True)
        return result

    def _register(self, tensor: torch.Tensor, made_here: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._alive:
            self._alive[key] = weakref.ref(storage, lambda _: self._forget(key))
            if made_here:
                self._bytes[key] = 0
        if key in self._bytes:
            self._set(key, storage.nbytes())

    def _set(self, key: int, size: int) -> None:
        self.current_bytes += size - self._bytes[key]
        self._bytes[key] = size
        self.peak_bytes = max(self.peak_bytes, self.current_bytes)

    def _forget(self, key: int) -> None:
        self._alive.pop(key, None)
        self.current_bytes -= self._bytes.pop(key, 0)
