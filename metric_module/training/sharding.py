"""Weights of an encoder divided among processes (FSDP2): which modules are sharded by themselves, and back again."""

from __future__ import annotations

from collections import Counter

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from metric_module.distributed import whole

LEAST = 100_000
"""Parameters of a block that is sharded by itself; smaller ones are gathered with the module around them."""


def blocks(encoder: nn.Module, least: int = LEAST) -> list[nn.Module]:
    """List the modules of an encoder to shard by themselves, inner ones first.

    They are the children of ``ModuleList`` and ``Sequential`` that have enough parameters outside of the blocks inside
    them, and share none with other modules: these would need it while it is not gathered.

    Args:
        encoder: Any module.
        least: Number of parameters.

    Example:
        >>> encoder = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(4, 4), nn.Linear(1, 2)))
        >>> blocks(encoder, least=6)
        [Linear(in_features=4, out_features=4, bias=True), Linear(in_features=2, out_features=2, bias=True)]
    """
    found: list[nn.Module] = []
    taken: set[nn.Parameter] = set()
    uses = _uses(encoder)
    for container in reversed([*encoder.modules()]):
        if not isinstance(container, nn.ModuleList | nn.Sequential):
            continue
        for child in container:
            if any(uses[parameter] > count for parameter, count in _uses(child).items()):
                continue
            own = set(child.parameters()) - taken
            if not isinstance(child, nn.ModuleList | nn.ModuleDict) and sum(one.numel() for one in own) >= least:
                found.append(child)
                taken |= own
    return found


def _uses(module: nn.Module) -> Counter[nn.Parameter]:
    """Count the modules inside a module that have each parameter."""
    return Counter(one for part in module.modules() for one in part.parameters(recurse=False))


def shard_encoder(encoder: nn.Module, mesh: DeviceMesh, least: int | None = None) -> None:
    """Divide the parameters of an encoder among processes, in place; each block is gathered when it is called.

    Args:
        encoder: The encoder; its forward pass becomes a collective call.
        mesh: The processes.
        least: See :func:`blocks`; None: :data:`LEAST`.
    """
    for parameter in encoder.parameters():
        parameter.data = parameter.data.contiguous()  # channels_last cannot be sharded
    scalars = {parameter for parameter in encoder.parameters() if parameter.ndim == 0}
    for module in (*blocks(encoder, LEAST if least is None else least), encoder):
        fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=scalars)


def gather_weights(module: nn.Module) -> None:
    """Replace sharded parameters by whole ones on the CPU, after a training; every process must call it.

    Args:
        module: Changed in place, and not to be called any more.
    """
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if isinstance(parameter, DTensor):
                part.register_parameter(name, nn.Parameter(whole(parameter.detach()), parameter.requires_grad))
