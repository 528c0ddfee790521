"""Random permutations that are evaluated at single places: no array of the whole permutation, no state.

The swap-or-not shuffle (Hoang, Morris, Rogaway 2012, "An enciphering scheme based on a card shuffle", section 2) is a
bijection of ``range(size)`` for any size, and each of its values costs a constant number of hashes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metric_module.keyed_random import GOLDEN, mix

ROUNDS = 32
_POSITIVE = (1 << 62) - 1


def keyed_permutation(key: Tensor, place: Tensor, size: Tensor | int) -> Tensor:
    """Value at some places of the random permutation of ``range(size)`` that a key names.

    In each round a card x and its partner (shift - x) mod size change places or not, by a coin that both share.

    Args:
        key: Int64 keys, one per permutation; use :func:`metric_module.keyed_random.combine` to make them.
        place: Int64 places, each in ``[0, size)``; broadcast against the keys.
        size: Sizes of the permutations, at least 1; broadcast against the keys.

    Returns:
        Int64 values in ``[0, size)``, in the broadcast shape; for one key, distinct at distinct places.

    Example:
        >>> keyed_permutation(torch.tensor(5), torch.arange(4), 4).sort().values.tolist()
        [0, 1, 2, 3]
    """
    x = place
    for offset in torch.arange(1, ROUNDS + 1, device=key.device) * GOLDEN:
        round_key = mix(key + offset)
        partner = ((round_key & _POSITIVE) % size - x) % size
        coin = mix(round_key + torch.maximum(x, partner) * GOLDEN)
        x = torch.where(coin < 0, partner, x)
    return x
