"""Addresses of scenes: local files, URLs, buckets and members of archives, which GDAL reads by windows."""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import quote, unquote, urldefrag, urlsplit
from urllib.request import url2pathname

from ome.errors import UserError

_SYSTEMS: Final = {
    "https": "/vsicurl/https://",
    "http": "/vsicurl/http://",
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "az": "/vsiaz/",
}
"""GDAL's prefix of each supported URL scheme."""

_PUBLIC: Final = {
    "/vsis3/": "AWS_NO_SIGN_REQUEST",
    "/vsigs/": "GS_NO_SIGN_REQUEST",
    "/vsiaz/": "AZURE_NO_SIGN_REQUEST",
}
"""The environment variable with which GDAL reads a public bucket without a login."""

_ZIP: Final = "/vsizip/"
SUPPORTED: Final = ("vsicurl", "vsis3", "vsigs", "vsiaz", "vsizip")


@dataclass(frozen=True)
class VsiPath:
    """A raster in one of GDAL's virtual file systems, with `name` and `stem` as `pathlib.Path` has them.

    Attributes:
        address: As the user wrote it.
        path: As GDAL opens it, `/vsi...`.
    """

    address: str
    path: str

    def __str__(self) -> str:
        """The address for messages: without the query, which may contain a signature."""
        return self.address.partition("?")[0]

    @property
    def name(self) -> str:
        """The last part of the address, without its query."""
        plain = self.path.partition("?")[0] if self.is_remote else self.path
        return Path(unquote(plain) if self.url else plain).name

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return Path(self.name).stem

    @property
    def url(self) -> str | None:
        """Its HTTP address; None for buckets and archives."""
        return self.path.removeprefix("/vsicurl/") if self.path.startswith("/vsicurl/") else None

    @property
    def is_remote(self) -> bool:
        """Whether it is read over the network."""
        return re.match(r"(/vsizip/\{?/?)?/?vsi(?!zip)", self.path) is not None

    @property
    def remedy(self) -> str:
        """What to do if GDAL cannot open it."""
        for system, variable in _PUBLIC.items():
            if system in self.path:
                return f"check the address and the login; a public bucket needs {variable}=YES set"
        return "check the address, or download it"

    @cached_property
    def member(self) -> tuple[Path, str] | None:
        """The local archive that holds it, and its name in there; None for a remote raster.

        Raises:
            UserError: There is no such archive.
        """
        if self.is_remote:
            return None
        inner = Path(re.sub(r"[{}]", "", self.path.removeprefix(_ZIP)))
        archive = next((path for path in (inner, *inner.parents) if path.is_file()), None)
        if archive is None:
            raise UserError(f"{self} does not exist: give /vsizip/ARCHIVE.zip/MEMBER")
        return archive, "" if archive == inner else str(inner.relative_to(archive))

    def absolute(self) -> "VsiPath":
        """The same address, independent of the working folder."""
        if self.is_remote or "{" in self.path or self.path.startswith(f"{_ZIP}/"):
            return self
        full = f"{_ZIP}{Path(self.path.removeprefix(_ZIP)).absolute()}"
        return replace(self, address=full, path=full)


SceneAddress: TypeAlias = Path | VsiPath
"""Address of a scene: a local path, or one that GDAL fetches."""


def scene_at(address: str | Path) -> SceneAddress:
    """Parses an address: a local file or folder becomes a `Path`, anything else a `VsiPath`.

    Args:
        address: A path, `https://`, `s3://`, `gs://`, `az://`, `file://`, or GDAL's `/vsi...`.

    Raises:
        UserError: The scheme or file system is not supported, or it has the form of no address.
    """
    text = str(address)
    try:
        parts = urlsplit(text if "://" in text else "")
        _ = parts.port  # which is read only then
    except ValueError as error:
        raise UserError(f"{text.partition('?')[0]} is not an address: {error}") from error
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    if match := re.match(r"(\w+):/{1,2}(?=[^/])", text):  # Path() leaves one slash
        scheme = match[1].lower()
        if scheme in _SYSTEMS:
            return VsiPath(text, _gdal_path(_SYSTEMS[scheme] + text[match.end() :]))
        if "://" in text:
            schemes = ", ".join(_SYSTEMS)
            raise UserError(f"{text.partition('?')[0]} is not supported: give {schemes}:// or a file")
    if not text.startswith("/vsi"):
        path = Path(address)
        return VsiPath(text, _ZIP + text) if path.suffix.lower() == ".zip" and path.is_file() else path
    if unknown := [system for system in re.findall(r"/(vsi\w+)", text) if system not in SUPPORTED]:
        supported = ", ".join(f"/{name}/" for name in SUPPORTED)
        raise UserError(f"{text}: /{unknown[0]}/ is not supported, only {supported}")
    if text.startswith("/vsicurl") and not re.match(r"/vsicurl/https?://", text):
        raise UserError(f"{text}: give /vsicurl/https://..., or the address alone")
    return VsiPath(text, _gdal_path(text))


def full_address(scene: SceneAddress) -> str:
    """An address that does not depend on the working folder."""
    return scene.absolute().address if isinstance(scene, VsiPath) else str(scene.resolve())


def _gdal_path(path: str) -> str:
    """A path whose characters that URLs do not allow, such as spaces, are percent-encoded."""
    if not path.startswith("/vsicurl/"):
        return path
    return quote(urldefrag(path).url, safe="%/:=&?~+!$,;'@()*[]")
