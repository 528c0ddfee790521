"""Random permutations that are evaluated at single positions, without state or an array of the whole permutation.

The swap-or-not shuffle (Hoang, Morris, Rogaway 2012, "An enciphering scheme based on a card shuffle", section 2) is a
bijection of ``range(size)`` for any size, and each value costs a constant number of hashes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metric_module.keyed_random import GOLDEN, mix

ROUNDS = 32
_POSITIVE = (1 << 62) - 1


def keyed_permutation(key: Tensor, place: Tensor, size: Tensor | int) -> Tensor:
    """Evaluate a random permutation of ``range(size)``, chosen by a key, at some positions.

    In each round a card x and its partner (shift - x) mod size swap or not, by a coin that both share.

    Args:
        key: Key of each permutation, int64, from :func:`metric_module.keyed_random.combine`.
        place: Positions in ``[0, size)``, int64; broadcast against the keys.
        size: Size of each permutation, at least 1; broadcast against the keys.

    Returns:
        Int64 values in ``[0, size)``, in the broadcast shape; distinct at distinct positions of one permutation.

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
