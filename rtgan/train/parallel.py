"""Several processes that train one net: started by torchrun, one for each GPU or CPU socket.

Every process computes on examples of its own; gradients are brought to their mean in one message after the backward
pass. These nets are small: hiding the message behind the computation, as `DistributedDataParallel` does, would gain
nothing, and a plain message works the same for the generator, whose gradient may start at the estimate
(`losses.Balancer`), and for the discriminators. Batch normalisation takes its statistics over all processes, so that
any number of processes gives the result of one with the whole batch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from ..errors import UsageError


class _SumOver(torch.autograd.Function):
    """Sum of a tensor over processes, with the sum of gradients on the way back."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation with statistics over all processes, for devices that `torch.nn.SyncBatchNorm` refuses."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError("Batch normalisation takes at least two dimensions.")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``(batch, channels, ...)``."""
        if not self.training:
            return super().forward(input)
        axes = [0, *range(2, input.dim())]
        shape = [1, -1] + [1] * (input.dim() - 2)
        count = input.new_full((1,), input.numel() // input.shape[1])
        sums = torch.cat((input.sum(axes), input.square().sum(axes), count))
        sums = _SumOver.apply(sums)  # type: ignore[no-untyped-call]
        count = sums[-1]
        mean, square = (sums[:-1] / count).chunk(2)
        variance = (square - mean.square()).clamp_min(0)
        if self.track_running_stats:
            assert self.running_mean is not None and self.running_var is not None
            assert self.num_batches_tracked is not None and self.momentum is not None
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        y: Tensor = (input - mean.view(shape)) * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y


def _with_shared_norms(net: nn.Module) -> nn.Module:
    for name, child in net.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            momentum = 0.1 if child.momentum is None else child.momentum
            shared = SharedBatchNorm(child.num_features, child.eps, momentum, child.affine, child.track_running_stats)
            shared.load_state_dict(child.state_dict())
            setattr(net, name, shared)
        else:
            _with_shared_norms(child)
    return net


class Processes:
    """One process among those that train together; alone where torchrun did not start it.

    Parameters
    ----------
    device : str
        ``"cpu"``, ``"mps"``, ``"cuda"`` or ``"cuda:N"``; with several processes ``"cuda"`` is the GPU of each one's
        local rank.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0")) if self.world > 1 else 0
        if self.world > 1 and device == "cuda":
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        try:
            self.device = torch.device(device)
            torch.zeros(1, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"The device {device!r} cannot be used here.") from error
        if self.world > 1 and not distributed.is_initialized():
            if self.device.type == "mps":
                raise UsageError("Several processes can train together on CPUs or CUDA devices, not on mps.")
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
            distributed.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and talks."""
        return self.rank == 0

    def prepared(self, net: nn.Module) -> nn.Module:
        """The net on its device, with batch normalisation over all processes."""
        if self.world > 1:
            if self.device.type == "cuda":
                net = nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
            else:
                net = _with_shared_norms(net)
        return net.to(self.device)

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a tensor over processes, without gradient."""
        if self.world == 1:
            return value.detach()
        total = value.detach().clone()
        distributed.all_reduce(total)
        return total / self.world

    def average(self, gradients: Sequence[Tensor]) -> None:
        """Bring gradients to their mean over processes, in place, by one message."""
        if self.world == 1 or not gradients:
            return
        flat = torch.cat([g.reshape(-1) for g in gradients])
        distributed.all_reduce(flat)
        flat /= self.world
        at = 0
        for gradient in gradients:
            gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient))
            at += gradient.numel()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.world == 1:
            return flag
        value = torch.tensor([float(flag)], device=self.device)
        distributed.all_reduce(value, distributed.ReduceOp.MAX)
        return bool(value.item())

    def from_first(self, values: dict[str, float] | None) -> dict[str, float]:
        """Figures of the first process, in all."""
        if self.world == 1:
            assert values is not None
            return values
        box: list[Any] = [values]
        distributed.broadcast_object_list(box, src=0, device=self.device)
        received: dict[str, float] = box[0]
        return received

    def close(self) -> None:
        """Part from the others."""
        if self.world > 1 and distributed.is_initialized():
            distributed.destroy_process_group()
