"""Build the shipped emoji data set from the npm packages ``@iconify-json/<family>``.

Run ``python -m benchmarks.emoji_sheet [--packages FOLDER] [--out FOLDER]``. Needs ``resvg-py`` 0.5.0 and, without
``--packages``, ``npm``. The same packages give the same files, byte for byte.

Each emoji is a class, and each design family contributes one drawing of it. Icons are matched between families by name;
an alias counts as a separate name if it only renames its parent. Hidden icons and skin tones are skipped. Classes drawn
by at least ``MIN_FAMILIES`` of the nine families are kept; families under share-alike licences (those missing in
``STORED``) count for that rule, but their drawings are not stored.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import subprocess
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.emoji_palette import Pixels, quantise
from metric_module.errors import UserError

VERSIONS = {
    "emojione": "1.2.3",
    "fluent-emoji": "1.2.7",
    "fluent-emoji-flat": "1.2.6",
    "fxemoji": "1.2.2",
    "noto": "1.2.9",
    "noto-v1": "1.2.5",
    "twemoji": "1.2.5",
    "emojione-v1": "1.2.3",
    "openmoji": "1.2.29",
}
STORED = ("emojione", "fluent-emoji", "fluent-emoji-flat", "fxemoji", "noto", "noto-v1", "twemoji")
MIN_FAMILIES = 7
CLASSES, IMAGES = 1055, 6554
PER_CLASS = (5, 7)
TILE = 64
COLUMNS = 64
RESVG = "0.5.0"
FOLDER = Path(__file__).parent
DATA = FOLDER.parent / "datamodules" / "emoji" / "data"

Family = Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the packages, check and draw the icons, and write the data set."""
    parser = argparse.ArgumentParser(description="Build the emoji sheet, its index and its attribution.")
    parser.add_argument("--packages", type=Path, help="folder with the npm tarballs; default: fetch them with npm")
    parser.add_argument("--out", type=Path, default=DATA, help="folder to write to")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.packages or fetch(Path(scratch))
        families = {name: read_package(folder, name) for name in VERSIONS}
    build(families, options.out)


def fetch(folder: Path) -> Path:
    """Download the pinned packages into a folder with npm.

    Raises:
        UserError: npm is missing or fails.
    """
    wanted = [f"@iconify-json/{name}@{number}" for name, number in VERSIONS.items()]
    try:
        subprocess.run(["npm", "pack", *wanted, "--pack-destination", str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        detail = (getattr(error, "stderr", None) or str(error).encode()).decode(errors="replace").strip()
        raise UserError(f"npm could not fetch {', '.join(wanted)}: {detail}") from error
    return folder


def read_package(folder: Path, name: str) -> Family:
    """Read ``icons.json`` from one family's tarball, with ``info.json`` under the key ``info``.

    Raises:
        UserError: The tarball of the pinned version is not in the folder, or it is not an icon package.
    """
    path = folder / f"iconify-json-{name}-{VERSIONS[name]}.tgz"
    if not path.is_file():
        raise UserError(f"no {path.name} in {folder}: expected the tarball of @iconify-json/{name}@{VERSIONS[name]}")
    try:
        with tarfile.open(path) as archive:
            icons, info = (json.load(_member(archive, f"package/{part}.json")) for part in ("icons", "info"))
    except (tarfile.TarError, EOFError, KeyError, ValueError) as error:
        raise UserError(f"{path} is not an icon package: {error}") from error
    return {**icons, "info": info}


def _member(archive: tarfile.TarFile, name: str) -> io.BytesIO:
    file = archive.extractfile(name)
    return io.BytesIO(file.read() if file else b"")


def icon_names(family: Family) -> dict[str, str]:
    """Map every usable name of a family, including plain aliases, to its icon."""
    names = {n: n for n, icon in family["icons"].items() if not icon.get("hidden") and "skin-tone" not in n}
    for name, alias in family.get("aliases", {}).items():
        if set(alias) == {"parent"} and alias["parent"] in names and "skin-tone" not in name:
            names.setdefault(name, alias["parent"])
    return names


def choose(families: Mapping[str, Family]) -> list[tuple[str, str, str]]:
    """List class, family and icon of every image to store, sorted by class and family.

    Raises:
        UserError: The numbers of classes or images are not those of the shipped data set.
    """
    names = {family: icon_names(content) for family, content in families.items()}
    drawn = Counter(name for of_family in names.values() for name in of_family)
    classes = sorted(name for name, count in drawn.items() if count >= MIN_FAMILIES)
    tiles = [(name, family, names[family][name]) for name in classes for family in STORED if name in names[family]]
    sizes = Counter(name for name, _, _ in tiles).values()
    found = (len(classes), len(tiles), (min(sizes, default=0), max(sizes, default=0)))
    if found != (CLASSES, IMAGES, PER_CLASS):
        raise UserError(
            f"expected {CLASSES} classes, {IMAGES} images and {PER_CLASS[0]} to {PER_CLASS[1]} images per class, "
            f"got {found[0]}, {found[1]} and {found[2][0]} to {found[2][1]}: are these the pinned packages?"
        )
    return tiles


def draw(family: Family, icon_name: str) -> Pixels:
    """Rasterise one icon on white, centred, its aspect ratio kept: ``(TILE, TILE, 3)``."""
    import resvg_py

    icon = family["icons"][icon_name]
    defaults = {"left": 0, "top": 0, "width": 16, "height": 16}
    box = " ".join(str(icon.get(key, family.get(key, value))) for key, value in defaults.items())
    namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    svg = f'<svg {namespaces} width="{TILE}" height="{TILE}" viewBox="{box}">{icon["body"]}</svg>'
    png = resvg_py.svg_to_bytes(svg_string=svg, background="#ffffff", skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def build(families: Mapping[str, Family], out: Path) -> None:
    """Draw every image and write ``emoji.png``, ``emoji.csv`` and ``ATTRIBUTION.md``.

    Raises:
        UserError: resvg-py is not the pinned version, or the counts are not as expected (see :func:`choose`).
    """
    require_resvg()
    tiles = choose(families)
    index, palette = quantise(np.stack([draw(families[family], icon) for _, family, icon in tiles]))
    white = len(palette) - 1
    rows = -(-len(tiles) // COLUMNS)
    slots = np.full((rows * COLUMNS, TILE, TILE), white, np.uint8)
    slots[: len(tiles)] = index
    sheet = slots.reshape(rows, COLUMNS, TILE, TILE).transpose(0, 2, 1, 3)
    image = Image.fromarray(sheet.reshape(rows * TILE, COLUMNS * TILE))
    image.putpalette(palette.tobytes())
    out.mkdir(parents=True, exist_ok=True)
    image.save(out / "emoji.png", optimize=True)
    with (out / "emoji.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("class", "family"), *((name, f) for name, f, _ in tiles)])
    (out / "ATTRIBUTION.md").write_text(attribution(families, (f for _, f, _ in tiles)), encoding="utf-8")


def require_resvg() -> None:
    """Check the version of the rasteriser.

    Raises:
        UserError: resvg-py is missing or has another version, whose drawings would differ.
    """
    try:
        found = version("resvg-py")
    except PackageNotFoundError:
        found = "none"
    if found != RESVG:
        raise UserError(f"drawing the emoji needs resvg-py {RESVG}, found {found}: pip install resvg-py=={RESVG}")


def attribution(families: Mapping[str, Family], drawn: Iterable[str]) -> str:
    """Write the text of ``ATTRIBUTION.md``: author, source and licence of each stored family."""
    counts = Counter(drawn)
    lines = ["| family | images | authors | source | licence |", "|---|---|---|---|---|"]
    for name in STORED:
        info = families[name]["info"]
        licence = f"[{info['license']['spdx']}]({info['license']['url']})"
        label = f"{name} ({info['name']}), npm `@iconify-json/{name}` {VERSIONS[name]}"
        author = f"{info['author']['name']} | {info['author']['url']}"
        lines.append(f"| {label} | {counts[name]} | {author} | {licence} |")
    notice = (FOLDER / "emoji_attribution.in.md").read_text(encoding="utf-8")
    return notice.replace("{table}", "\n".join(lines))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
