"""Resolution of a configuration: once, into plain values, which are checked and then built from.

A value that is resolved again may be another one, so nothing may hold an interpolation afterwards. Resolvers that make
nodes from text do not exist while a task runs, and sizes are bounded before anything is expanded.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from metric_module.config.checks import check_keys
from metric_module.config.renamed import rename_targets
from metric_module.config.schema import Config
from metric_module.config.trust import check_names, leaves
from metric_module.errors import UserError

LIMIT = 100_000
"""Most values of a file or of a configuration; a usual one has about 500."""

_DEEPEST = 50  # levels of nesting: readers recurse
_TEXT = 1_000_000  # most characters of all interpolated texts together
_TOO_LARGE = f"expected at most {LIMIT:,} values, with every alias and reference written out, and {_DEEPEST} levels"
_MAKERS: dict[str, Callable[..., Any]] = {"oc.create": oc.create, "oc.decode": oc.decode}

_last: list[tuple[weakref.ref[DictConfig], frozenset[str]]] = []


def plain(cfg: DictConfig) -> DictConfig:
    """Resolve a configuration once, check the names in it, and return its plain values with the types of the schema.

    Args:
        cfg: The composed configuration, without ``hydra``.

    Returns:
        A new configuration without interpolations; the given one if this function returned it last.

    Raises:
        UserError: If a value cannot be resolved, is still an interpolation, or has the wrong type; if there are too
            many values; if a ``_target_`` is not allowed.
    """
    if _last and _last[0][0]() is cfg:
        return cfg
    try:
        with no_nodes_from_text(), _bounded_texts():
            values = _values(cfg, iter(range(LIMIT)))
        for path, _, value in leaves("", values):
            if "${" in str(value):
                raise UserError(f"{path}: expected a plain value, got {value!r}")
        check_keys(values)
        made = cast(DictConfig, OmegaConf.merge(OmegaConf.structured(Config), values))
    except (OmegaConfBaseException, UserError) as error:  # OmegaConf adds lines to the errors of others
        key = error.full_key if isinstance(error, OmegaConfBaseException) else None
        raise UserError((f"{key}: " if key else "") + str(error).splitlines()[0]) from error
    except RecursionError:
        raise UserError("configuration: expected no value that contains or refers to itself") from None
    rename_targets(made)
    check_names(OmegaConf.to_container(made))
    _last[:] = [(weakref.ref(made), references(cfg))]
    return made


def references(cfg: DictConfig) -> frozenset[str]:
    """List the places at which a configuration refers to others, or did so before :func:`plain` resolved it.

    Args:
        cfg: A configuration.

    Returns:
        Their keys, such as ``criterion.margin``.
    """
    if _last and _last[0][0]() is cfg:
        return _last[0][1]
    return frozenset(path for path, _, value in leaves("", OmegaConf.to_container(cfg)) if "${" in str(value))


@contextmanager
def no_nodes_from_text() -> Iterator[None]:
    """Take the resolvers ``oc.create`` and ``oc.decode`` from OmegaConf, and bound the size of the files it loads."""
    found = [name for name in _MAKERS if OmegaConf.clear_resolver(name)]
    load = OmegaConf.load
    OmegaConf.load = staticmethod(_load)  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        OmegaConf.load = staticmethod(load)  # type: ignore[method-assign]
        for name in found:
            OmegaConf.register_new_resolver(name, _MAKERS[name])


def check_size(where: str, node: Any) -> None:
    """Check how many values an object has once every shared part is written out, without writing it out.

    Args:
        where: The file or key, for the message.
        node: Nested dicts and lists, or a node of a yaml file.

    Raises:
        UserError: If there are more than :data:`LIMIT`, it contains itself, or it is nested more than 50 levels deep.
    """
    sizes: dict[int, int] = {}

    def size(one: Any, depth: int = 0) -> int:
        """Count the values of an object; an object inside itself, or nested too deeply, is larger than any limit."""
        if id(one) not in sizes and depth < _DEEPEST:
            sizes[id(one)] = LIMIT + 1
            inside = one.value if isinstance(one, yaml.CollectionNode) else one
            parts = [*inside, *inside.values()] if isinstance(inside, Mapping) else inside
            nested = isinstance(parts, Sequence) and not isinstance(parts, str | bytes)
            sizes[id(one)] = 1 + (sum(size(part, depth + 1) for part in parts) if nested else 0)
        return sizes.get(id(one), LIMIT + 1)

    if size(node) > LIMIT:
        raise UserError(f"{where}: {_TOO_LARGE}")


def _load(file: str | Path | IO[Any]) -> DictConfig | ListConfig:
    """Load a yaml file as ``OmegaConf.load`` does, but check its size before aliases are expanded."""
    if isinstance(file, str | Path):
        with Path(file).open(encoding="utf-8") as stream:
            return _load(stream)
    where = str(getattr(file, "name", "yaml"))
    loader = get_yaml_loader()(file)
    try:
        node = loader.get_single_node()
        check_size(where, node)
        content = None if node is None else loader.construct_document(node)
    except RecursionError:
        raise UserError(f"{where}: {_TOO_LARGE}") from None
    finally:
        loader.dispose()
    if content is not None and not isinstance(content, list | dict | str):
        raise UserError(f"{where}: expected keys and values, got {content!r}")
    return OmegaConf.create({} if content is None else content)


def _values(node: Any, budget: Iterator[int]) -> Any:
    """Resolve a node into dicts, lists and scalars; ``budget`` yields once for every value that may be made."""
    if not isinstance(node, DictConfig | ListConfig):
        return node
    keys: list[Any] = list(node) if isinstance(node, DictConfig) else list(range(len(node)))
    found = []
    for key in keys:
        if next(budget, None) is None:
            raise UserError(f"configuration: {_TOO_LARGE}")
        found.append("???" if OmegaConf.is_missing(node, key) else _values(node[key], budget))
    return dict(zip(keys, found, strict=True)) if isinstance(node, DictConfig) else found


@contextmanager
def _bounded_texts() -> Iterator[None]:
    """Bound the number and the length of resolved interpolations: texts of texts of texts grow exponentially."""
    resolve, left = BaseContainer.resolve_parse_tree, [_TEXT]

    def bounded(self: Any, *arguments: Any, **options: Any) -> Any:
        """Resolve an interpolation, and take its length from what is left."""
        found = resolve(self, *arguments, **options)
        left[0] -= 100 + (len(found) if isinstance(found, str) else 0)
        if left[0] < 0:
            raise UserError(f"configuration: expected at most {_TEXT:,} characters of interpolated text")
        return found

    BaseContainer.resolve_parse_tree = bounded  # type: ignore[method-assign]
    try:
        yield
    finally:
        BaseContainer.resolve_parse_tree = resolve  # type: ignore[method-assign]
