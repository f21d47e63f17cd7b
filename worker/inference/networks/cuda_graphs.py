"""Forward passes on a GPU that are recorded once for each size of batch, and then replayed (docs/decisions/0053).

Python and the driver take 0.3 to 5 ms to start the kernels of a network one after the other, whatever the batch. A
replay starts them all at once, in 0.02 ms.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from jobs.errors import one_line

log = logging.getLogger(__name__)

_WARM_UP_FORWARDS = 2  # before the recording: libraries choose their kernels in the first
_TOLERANCE = 1e-2  # of an output, between the recording and the network itself


class CudaGraphs(nn.Module):
    """Computes a network on a GPU by CUDA graphs. Inputs and outputs are float32 in the memory of the CPU.

    Batches are padded to a power of two, so that few sizes are recorded. A network that cannot be recorded, for its
    Python code looks at values or its kernels wait for the CPU, is computed as it is.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self._network = network
        self._device = device
        torch.backends.cudnn.allow_tf32 = False  # float32 means float32: bfloat16 is the faster way to round
        self._pool = torch.cuda.graph_pool_handle()  # one for all sizes: only one graph runs at a time
        self._recorded = dict[int, _Recorded | None]()

    def forward(self, inputs: Tensor) -> Tensor:
        """One forward pass.

        Raises:
            torch.OutOfMemoryError: the GPU has too little memory for this batch.
        """
        size = 1 << (len(inputs) - 1).bit_length()
        if size not in self._recorded:
            self._recorded[size] = self._record(inputs, size)
        recorded = self._recorded[size]
        return self._compute(inputs) if recorded is None else recorded.replay(inputs)

    def _compute(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self._network(inputs.contiguous().pin_memory().to(self._device, non_blocking=True))
        return outputs.float().cpu()

    def _record(self, inputs: Tensor, size: int) -> "_Recorded | None":
        """None if this size cannot be recorded."""
        expected = self._compute(inputs)  # outside of the try block: an error of the network is the caller's
        try:
            recorded = _Recorded(self._forward_on_gpu, inputs, size, self._device, self._pool)
            if torch.allclose(recorded.replay(inputs), expected, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True):
                return recorded
            reason = "a recorded forward pass gives other outputs"
        except RuntimeError as error:  # an exhausted memory, too: the forward pass itself had enough
            reason = one_line(error)
        torch.cuda.empty_cache()
        log.info("no CUDA graph for batches of %s: %s", size, reason)
        return None

    def _forward_on_gpu(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self._network(inputs.contiguous())
        return outputs.float()


class _Recorded:
    """A recording of one size of batch, with the memory that it reads and writes."""

    def __init__(
        self, forward: Callable[[Tensor], Tensor], example: Tensor, size: int, device: torch.device, pool: Any
    ) -> None:
        layout = _layout(example)
        self._staged = torch.zeros(size, *example.shape[1:]).contiguous(memory_format=layout).pin_memory()
        self._inputs = self._staged.to(device)
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch gives no types
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_FORWARDS):
                forward(self._inputs)
        torch.cuda.current_stream(device).wait_stream(stream)
        with torch.cuda.graph(self._graph, pool=pool):
            self._outputs = forward(self._inputs)
        self._results = torch.empty(self._outputs.shape).pin_memory()
        self._stream = torch.cuda.current_stream(device)

    def replay(self, inputs: Tensor) -> Tensor:
        """The outputs for up to as many images as were recorded; the rows behind them are computed and dropped."""
        images = len(inputs)
        self._staged[:images].copy_(inputs)
        self._inputs.copy_(self._staged, non_blocking=True)
        self._graph.replay()
        self._results.copy_(self._outputs, non_blocking=True)
        self._stream.synchronize()
        return self._results[:images].clone()


def _layout(images: Tensor) -> torch.memory_format:
    """Of a batch in memory: decoded images have their channels last, and are copied as they are."""
    is_last = images.dim() == 4 and images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_last else torch.contiguous_format
