"""Names of countries and areas in many languages: a data set of texts from the package babel.

Legend: N = names.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import KW_ONLY, dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from typing_extensions import override

from datamodules.base import PKDataModule
from datamodules.checks import check_choice
from datamodules.sampling.dataset import Samples
from datamodules.sampling.grouping import codes
from datamodules.sources.texts import Texts
from metric_module.errors import UserError

if TYPE_CHECKING:
    from babel import Locale

NOT_ONE_PLACE = frozenset({"EU", "EZ", "QO", "UN", "XA", "XB", "ZZ"})
"""Two-letter codes of unions, outlying islands, pseudo-locales and unknown territories."""


class Name(NamedTuple):
    """Name of a territory.

    Attributes:
        territory: ISO 3166 code with the extensions of CLDR.
        text: The name.
        language: Language that uses this name; of several, the one with most locales, the first by code on a tie.
    """

    territory: str
    text: str
    language: str


@dataclass(eq=False, repr=False)
class TerritoriesDataModule(PKDataModule):
    """257 countries and areas by their names in 298 languages: 155 for train, 51 for val and 51 for test.

    A class is a territory, a sample one of its distinct names: ``Deutschland``, ``Germany``, ``Saksa``. The names come
    from the Unicode CLDR in the package babel (35,812 in babel 2.19). Names that two territories share (``Kongo``,
    ``Nigeri``; nine in babel 2.19) are ambiguous and are removed. Inputs are ``list[str]``.

    There are two protocols: retrieval among all names, and retrieval across :attr:`groups`, which ignores names in the
    query's own script; across languages the figures are nearly those among all names.

    Args:
        group_by: Groups of the names: ``script`` (the script of most letters) or ``language``.

    Other arguments are those of :class:`datamodules.PKDataModule`; the names are in memory, so ``num_workers=0`` is
    fast enough.

    Raises:
        UserError: An argument is out of range; in ``load``: babel is missing.
    """

    classes_per_batch: int | None = 32
    samples_per_class: int = 8
    _: KW_ONLY
    group_by: str = "script"

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("datamodule.group_by", self.group_by, ("script", "language"))

    @override
    def load(self) -> Samples:
        """Collect the names and split the territories."""
        names = territory_names()
        labels, territories = codes([name.territory for name in names])  # (N,)
        groups = [name.language if self.group_by == "language" else script(name.text) for name in names]
        return Samples(
            fetch=Texts([name.text for name in names]),
            labels=labels,
            splits=self.own_split(labels, territories),
            class_names=[f"{code} {english(code)}" for code in territories],
            groups=codes(groups)[0],
        )


@cache
def territory_names() -> list[Name]:
    """List every name of every territory, ordered by code and text, without names that two territories share.

    Raises:
        UserError: babel is missing.
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
    """Return the script of most letters of a text, by the first word of their Unicode names.

    Example:
        >>> script("Saksa"), script("Германия"), script("123")
        ('LATIN', 'CYRILLIC', 'NONE')
    """
    words = [unicodedata.name(letter, "NONE").split()[0] for letter in text if letter.isalpha()]
    return Counter(words).most_common(1)[0][0] if words else "NONE"


def english(code: str) -> str:
    """Return the English name of a territory.

    Example:
        >>> english("DE")
        'Germany'
    """
    from babel import Locale

    return str(Locale("en").territories[code])


def _locales() -> list[Locale]:
    """List every locale of babel, ordered by name."""
    try:
        from babel import Locale
        from babel.localedata import locale_identifiers
    except ImportError:
        raise UserError("datamodule=territories needs babel: pip install 'lightning-triplets[text]'") from None
    return [Locale.parse(name) for name in sorted(locale_identifiers())]
