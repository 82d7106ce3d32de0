"""STAC items as scenes: the JSON that names the rasters (assets) of one place and time."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin

from ome.errors import UserError
from ome.geo.raster_folder import SUFFIXES
from ome.geo.remote import fetch
from ome.geo.vsi import SceneAddress, VsiPath, scene_at

_TYPES: Final = ("image/tiff", "image/vnd.stac.geotiff", "image/png", "image/jpeg")
_LARGEST: Final = 1 << 24


def is_item(scene: SceneAddress) -> bool:
    """Whether an address looks like a STAC item: a JSON file, or an item of a STAC API."""
    ending = Path(scene.name).suffix.lower()
    of_api = isinstance(scene, VsiPath) and re.search(r"/items/[^/]+$", str(scene)) is not None
    return ending in {".json", ".geojson"} or (of_api and ending not in SUFFIXES)


def raster_of(scene: SceneAddress, asset: str | None = None, *, allow_external: bool = False) -> SceneAddress:
    """The raster of a scene: an asset of a STAC item; any other scene is returned as it is.

    Args:
        scene: The scene.
        asset: Name of the asset; None for the only raster, or the only one with the role `data` or `visual`.
        allow_external: Let an item on this disk name an asset outside its folder.

    Raises:
        UserError: It is not an item, the asset is missing, ambiguous or outside the allowed folder.
    """
    if not is_item(scene):
        if asset is not None:
            raise UserError(f"asset={asset} needs a STAC item, and {scene} is not one: leave it out")
        return scene
    assets = _assets(scene)
    name = _only(scene, assets) if asset is None else asset
    if name not in assets:
        raise UserError(f"{scene} has no asset {name}: {_choose(assets)}")
    href = str(assets[name].get("href"))
    if isinstance(scene, VsiPath):
        raster = scene_at(urljoin(scene.url or "", href))
        if isinstance(raster, Path):
            raise UserError(f"{scene} names {href}, a local file: download the item to map that")
        return raster
    raster = scene_at(href)
    raster = scene.parent / raster if isinstance(raster, Path) else raster
    inside = isinstance(raster, Path) and scene.resolve().parent in raster.resolve().parents
    if not inside and not allow_external:
        raise UserError(
            f"{scene} names {href}, outside its folder: type stage.predict.allow_external=true if that is "
            "meant"
        )
    return raster


def _assets(scene: SceneAddress) -> dict[str, Mapping[str, Any]]:
    if isinstance(scene, Path):
        content = scene.read_bytes()
    elif scene.url:
        content = fetch(scene.url, str(scene), _LARGEST, by_range=False)[1]
    else:
        raise UserError(f"{scene}: give the https address of the item, or a file")
    try:
        item = json.loads(content)
        is_whole = item["type"] == "Feature" and all(asset["href"] for asset in item["assets"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        is_whole = False
    if not is_whole:
        raise UserError(f"{scene} is not a STAC item (a GeoJSON feature with assets): give one")
    return dict(item["assets"])


def _only(scene: SceneAddress, assets: Mapping[str, Mapping[str, Any]]) -> str:
    rasters = [name for name, asset in assets.items() if _is_raster(asset)]
    marked = [name for name in rasters if _roles(assets[name]) & {"data", "visual"}]
    for names in (rasters, marked):
        if len(names) == 1:
            return names[0]
    choice = {name: assets[name] for name in rasters} or assets
    raise UserError(f"{scene} has {len(rasters) or 'no'} raster assets: {_choose(choice)}")


def _is_raster(asset: Mapping[str, Any]) -> bool:
    kind = str(asset.get("type") or "").partition(";")[0].strip().lower()
    return (kind in _TYPES or not kind) and not _roles(asset) & {"thumbnail", "overview", "metadata"}


def _roles(asset: Mapping[str, Any]) -> set[str]:
    roles = asset.get("roles")
    return {str(role) for role in roles} if isinstance(roles, list) else set()


def _choose(assets: Mapping[str, Mapping[str, Any]]) -> str:
    """Advice that lists the assets."""
    listed = [f"{name} ({asset.get('type') or 'no type'})" for name, asset in assets.items()]
    return f"type stage.predict.asset=NAME of {', '.join(listed)}"
