"""Training with weights, gradients and optimizer state divided among the processes (FSDP2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map
from typing_extensions import override

from metric_module.distributed import is_sharded, shard_like, whole
from metric_module.encoders.batch_norm import norms_with_batch_statistics
from metric_module.errors import UserError
from metric_module.training.sharding import shard_encoder


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all processes: each keeps its shard of the encoder, and gathers one block at a time.

    Parameters without dimensions, and those of a distance, are whole on every process; their gradients are averaged.
    Sharding is done here and not in ``configure_model``, because Lightning warns users of averages about modules that
    override it. Checkpoints are files with whole tensors, as of one process. The trainer's checkpoint plugin writes and
    reads them; the reader of Lightning's strategy can run code in a folder.
    """

    def __init__(self) -> None:
        super().__init__(data_parallel_size=1, tensor_parallel_size=1, save_distributed_checkpoint=False)

    load_checkpoint = Strategy.load_checkpoint
    save_checkpoint = Strategy.save_checkpoint

    @property
    @override
    def lightning_restore_optimizer(self) -> bool:
        """Whether Lightning restores the optimizers, here as for any strategy."""
        return True

    @property
    def _module(self) -> LightningModule:
        assert self.lightning_module is not None  # the trainer sets it first
        return self.lightning_module

    @override
    def _setup_distributed(self) -> None:
        super()._setup_distributed()
        self._data_parallel_size = self.world_size

    @override
    def setup(self, trainer: Trainer) -> None:
        """Check the training, shard the encoder unless an earlier call did, then do what every strategy does."""
        if trainer.state.fn == TrainerFn.FITTING:
            check_sharded(self._module, trainer)
        encoder = self._module.encoder
        assert isinstance(encoder, nn.Module)
        if not is_sharded(encoder):
            self._start_from_the_first(self._module)
            shard_encoder(encoder, self.device_mesh["data_parallel"])
        Strategy.setup(self, trainer)

    def _start_from_the_first(self, module: nn.Module) -> None:
        """Copy the state of the first process to all others, as DDP does."""
        for value in (*module.parameters(), *module.buffers()):
            sent = value.detach().to(self.root_device).contiguous()
            dist.broadcast(sent, 0)
            value.detach().copy_(sent)

    @override
    def post_backward(self, closure_loss: Tensor) -> None:
        """Average the gradients of the parameters that are whole; a part that was averaged before stays the same."""
        for parameter in self._module.parameters():
            if parameter.grad is not None and not isinstance(parameter, DTensor):
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.world_size

    @override
    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the state with whole tensors; every process must call it."""
        return {name: whole(value) for name, value in self._module.state_dict().items()}

    @override
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load whole tensors, of which each process takes its shard."""
        own = self._module.state_dict()
        state = {name: shard_like(value, own.get(name)) for name, value in checkpoint["state_dict"].items()}
        self._module.load_state_dict(state, strict=strict)

    @override
    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the state that the optimizer would have on one process; every process must call it."""
        state: dict[str, Any] = tree_map(whole, Strategy.optimizer_state(self, optimizer))
        return state

    @override
    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load the states of one process, of which each process takes its shard."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            state = {
                number: {name: shard_like(value, parameters[number]) for name, value in values.items()}
                for number, values in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": state})


def refuse_sharded(trainer: Trainer, name: str, reason: str) -> None:
    """Accept a part of a training unless the trainer's strategy shards the weights.

    Args:
        trainer: The trainer.
        name: Key of the part.
        reason: Why it does not work with shards.

    Raises:
        UserError: If the strategy is a :class:`ShardedStrategy`.
    """
    if isinstance(trainer.strategy, ShardedStrategy):
        raise UserError(f"{name}: trainer=fsdp cannot do this ({reason}); leave it out, or give trainer=ddp")


def check_sharded(module: LightningModule, trainer: Trainer) -> None:
    """Accept a training with sharded weights whose result is that of one process.

    Args:
        module: Has an encoder, and perhaps ``encode_chunk_size``.
        trainer: Its trainer; with another strategy nothing is checked.

    Raises:
        UserError: If it uses a chunk size, BatchNorm with the statistics of batches, an average of the weights, or
            clips a gradient of which parts are not sharded.
    """
    if getattr(module, "encode_chunk_size", None) is not None:
        refuse_sharded(trainer, "module.encode_chunk_size", "every chunk would gather all weights again")
    encoder = module.encoder
    assert isinstance(encoder, nn.Module)
    for name in norms_with_batch_statistics(encoder):
        kept = "each process has statistics of its own"
        refuse_sharded(trainer, f"{type(encoder).__name__}.{name}", f"a BatchNorm in training mode: {kept}")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging | StochasticWeightAveraging):
            refuse_sharded(trainer, type(callback).__name__, "the average would be of whole weights")
    sharded = {parameter for parameter in encoder.parameters() if parameter.ndim}
    for name, value in module.named_parameters():
        if trainer.gradient_clip_val and value.requires_grad and value not in sharded:
            refuse_sharded(trainer, "trainer.gradient_clip_val", f"{name} is not sharded")
