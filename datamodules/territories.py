"""Names of countries and areas in many languages, from the package babel: text that pip brings.

Legend: N names.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import KW_ONLY, dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from typing_extensions import override

from datamodules.base import PKDataModule
from datamodules.sampling.dataset import Samples
from datamodules.sampling.splits import split_samples
from datamodules.sources.texts import Texts
from metric_module.errors import UserError

if TYPE_CHECKING:
    from babel import Locale

NOT_ONE_PLACE = frozenset({"EU", "EZ", "QO", "UN", "XA", "XB", "ZZ"})
"""Codes of two letters for unions, for outlying islands, for made-up locales and for the unknown."""


class Name(NamedTuple):
    """A territory's name.

    Attributes:
        territory: Its ISO 3166 code, as CLDR extends them.
        text: The name.
        language: Of all languages that call it so, the one with most locales (and the first by code, among equals).
    """

    territory: str
    text: str
    language: str


@dataclass(eq=False, repr=False)
class TerritoriesDataModule(PKDataModule):
    """257 countries and areas by their names in 298 languages: 155 to train on, 51 and 51 others to validate and test.

    A class is a territory, a sample one of its names, as many as differ: ``Deutschland``, ``Germany``, ``Saksa``. They
    are those of the Unicode CLDR, which the package babel carries (35,812 in babel 2.19). A name that two territories
    share (``Kongo``, ``Nigeri``; nine in babel 2.19) has no right answer, and is left out. Inputs are ``list[str]``.

    Two protocols: retrieval among all names, and, by :attr:`groups`, across scripts, where the other names in its own
    script are ignored, or across languages, which is nearly the same as among all.

    Args:
        group_by: What the groups are: ``script``, which is that of most letters of the name, or ``language``.

    Other arguments are those of :class:`datamodules.PKDataModule`; the names are in memory, so ``num_workers=0`` serves
    well.

    Raises:
        UserError: An argument is out of range; later, if there is no babel.
    """

    _: KW_ONLY
    group_by: str = "script"

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_by not in {"script", "language"}:
            raise UserError(f"datamodule.group_by: expected script or language, got {self.group_by!r}")

    @override
    def load(self) -> Samples:
        """Collect the names and split the territories."""
        names = territory_names()
        codes = sorted({name.territory for name in names})
        labels = _numbered([name.territory for name in names])  # (N,)
        of_group = [name.language if self.group_by == "language" else script(name.text) for name in names]
        return Samples(
            fetch=Texts([name.text for name in names]),
            labels=labels,
            splits=split_samples(labels, codes, seed=self.split_seed, fractions=self.fractions),
            class_names=[f"{code} {english(code)}" for code in codes],
            groups=_numbered(of_group),
        )


@cache
def territory_names() -> list[Name]:
    """Every name of every territory, in order of code and text, without those that two territories share.

    Raises:
        UserError: There is no babel.
    """
    languages: dict[tuple[str, str], Counter[str]] = {}
    owners: dict[str, set[str]] = {}
    for locale in _locales():
        for code, text in locale.territories.items():
            if len(code) == 2 and code not in NOT_ONE_PLACE:
                languages.setdefault((code, text), Counter())[locale.language] += 1
                owners.setdefault(text, set()).add(code)
    return [
        Name(code, text, min(counts, key=lambda language: (-counts[language], language)))
        for (code, text), counts in sorted(languages.items())
        if len(owners[text]) == 1
    ]


def script(text: str) -> str:
    """The script of most letters of a text, by the first word of their Unicode names.

    Example:
        >>> script("Saksa"), script("Германия"), script("123")
        ('LATIN', 'CYRILLIC', 'NONE')
    """
    words = [unicodedata.name(letter, "NONE").split()[0] for letter in text if letter.isalpha()]
    return Counter(words).most_common(1)[0][0] if words else "NONE"


def english(code: str) -> str:
    """The English name of a territory.

    Example:
        >>> english("DE")
        'Germany'
    """
    from babel import Locale

    return str(Locale("en").territories[code])


def _locales() -> list[Locale]:
    """Every locale that babel knows, in order of its name."""
    try:
        from babel import Locale
        from babel.localedata import locale_identifiers
    except ImportError:
        raise UserError("datamodule: no module babel; pip install 'lightning-triplets[text]'") from None
    return [Locale.parse(name) for name in sorted(locale_identifiers())]


def _numbered(words: list[str]) -> torch.Tensor:
    """Place of each word among the distinct ones, in order, int64 ``(N,)``."""
    code = {word: place for place, word in enumerate(sorted(set(words)))}
    return torch.tensor([code[word] for word in words])
