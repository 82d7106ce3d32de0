"""Scenes behind a URL, in a bucket or in an archive, which GDAL reads by windows."""

import os
import re
import zipfile
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urldefrag, urlsplit
from urllib.request import Request, url2pathname, urlopen

from ome.errors import UserError

_SYSTEMS: Final = {
    "https": "/vsicurl/https://",
    "http": "/vsicurl/http://",
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "az": "/vsiaz/",
}
"""GDAL's prefix of each supported URL scheme."""

_ZIP: Final = "/vsizip/"
_SUPPORTED: Final = ("vsicurl", "vsis3", "vsigs", "vsiaz", "vsizip")
_START: Final = 1 << 16
_FORCED: Final = {
    # Sidecars may have any format and refer to other files, and each probe is a request.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # Without a cache, a long session notices that a scene was replaced.
    "CPL_VSIL_CURL_NON_CACHED": ":".join(f"/{system}/" for system in _SUPPORTED if system != "vsizip"),
}
_DEFAULTS: Final = {
    # Reads the block table of most GeoTIFFs in one request: rasterio blocks all threads during further ones.
    "GDAL_INGESTED_BYTES_AT_OPEN": str(_START),
    "GDAL_HTTP_CONNECTTIMEOUT": "15",
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "1",
}
"""Defaults of GDAL's options that a user may override by environment variables."""

WITHOUT_HEAD: Final = {"CPL_VSIL_CURL_USE_HEAD": "NO"}
"""For servers and signed URLs that allow only GET: GDAL sends GET and aborts a response of the whole file."""


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


class Probe(NamedTuple):
    """What is known of a scene before GDAL opens it.

    Attributes:
        state: ETag, date and size of a URL, which change when it is replaced; empty for an archive or bucket.
        start: Its first bytes; empty for a bucket.
    """

    state: list[Any]
    start: bytes


def scene_at(address: str | Path) -> SceneAddress:
    """Parses an address: a local file or folder becomes a `Path`, anything else a `VsiPath`.

    Args:
        address: A path, `https://`, `s3://`, `gs://`, `az://`, `file://`, or GDAL's `/vsi...`.

    Raises:
        UserError: The scheme or file system is not supported.
    """
    text = str(address)
    if text.startswith("file://"):
        return Path(url2pathname(urlsplit(text).path))
    if match := re.match(r"(\w+):/{1,2}(?=[^/])", text):  # Path() leaves one slash
        scheme = match[1].lower()
        if scheme in _SYSTEMS:
            return VsiPath(text, _gdal_path(_SYSTEMS[scheme] + text[match.end() :]))
        if "://" in text:
            schemes = ", ".join(_SYSTEMS)
            raise UserError(f"{text.partition('?')[0]} is not supported: give {schemes}:// or a file")
    if not text.startswith("/vsi"):
        return Path(address)
    if unknown := [system for system in re.findall(r"/(vsi\w+)", text) if system not in _SUPPORTED]:
        supported = ", ".join(f"/{name}/" for name in _SUPPORTED)
        raise UserError(f"{text}: /{unknown[0]}/ is not supported, only {supported}")
    if text.startswith("/vsicurl") and not re.match(r"/vsicurl/https?://", text):
        raise UserError(f"{text}: give /vsicurl/https://..., or the address alone")
    return VsiPath(text, _gdal_path(text))


def full_address(scene: SceneAddress) -> str:
    """An address that does not depend on the working folder."""
    return scene.absolute().address if isinstance(scene, VsiPath) else str(scene.resolve())


def reading_options() -> dict[str, str]:
    """GDAL's options for remote and archived scenes."""
    return {key: value for key, value in _DEFAULTS.items() if key not in os.environ} | _FORCED


def probe(scene: VsiPath) -> Probe:
    """Requests the start of a scene before GDAL does, for an error message that says why it cannot be read.

    Raises:
        UserError: It does not exist, cannot be reached or read by windows, or is damaged in its archive.
    """
    if scene.url:
        headers, start = fetch(scene.url, str(scene), _START)
        size = headers["Content-Range"].rpartition("/")[2]
        return Probe([headers["ETag"], headers["Last-Modified"], size], start)
    return Probe([], b"" if scene.member is None else _start_of_member(scene, *scene.member))


def fetch(url: str, name: str, most: int, *, by_range: bool = True) -> tuple[Any, bytes]:
    """The headers and the first bytes of a URL.

    Args:
        url: Its address.
        name: Its name in error messages.
        most: Largest number of bytes to read.
        by_range: Send a range request, and refuse a server that does not support it.

    Raises:
        UserError: The request failed; the message says why.
    """
    request = Request(url, headers={"Range": f"bytes=0-{most - 1}"} if by_range else {})  # noqa: S310 - http
    try:
        timeout = float(os.environ.get("GDAL_HTTP_TIMEOUT", _DEFAULTS["GDAL_HTTP_TIMEOUT"]))
        with urlopen(request, timeout=timeout) as answer:  # noqa: S310
            if by_range and (answer.status != 206 or "Content-Range" not in answer.headers):
                raise UserError(
                    f"{name}: its server does not support range requests: download it, and map the file"
                )
            return answer.headers, answer.read(most)
    except HTTPError as error:
        phrase = " ".join(str(error.reason).split())
        raise UserError(f"{name} {_refusal(error.code)} ({error.code} {phrase})") from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{name} cannot be reached ({reason}): check the address and the network") from error


def _refusal(code: int) -> str:
    if code in {404, 410}:
        return "does not exist: check the address"
    if code in {401, 403}:
        return "is not public: give its signed address"
    return "is empty" if code == 416 else "cannot be downloaded: try again later"


def _gdal_path(path: str) -> str:
    """A path whose characters that URLs do not allow, such as spaces, are percent-encoded."""
    if not path.startswith("/vsicurl/"):
        return path
    return quote(urldefrag(path).url, safe="%/:=&?~+!$,;'@()*[]")


def _start_of_member(scene: VsiPath, archive: Path, name: str) -> bytes:
    """The first bytes of a member; reads it to its end, since GDAL does not verify archives' checksums."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [name for name in opened.namelist() if not name.endswith("/")]
            if name not in members and (name or len(members) != 1):
                content = ", ".join(members[:5]) + (", ..." if len(members) > 5 else "")
                raise UserError(f"{scene} does not exist: {archive.name} holds {content or 'nothing'}")
            with opened.open(name or members[0]) as member:
                start = member.read(_START)
                while member.read(1 << 20):
                    pass
                return start
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, ValueError, EOFError) as error:
        raise UserError(
            f"{scene} is damaged or cannot be unpacked ({error}): copy or download it again"
        ) from error
