"""Requests to scenes behind a URL or in an archive, and the options with which GDAL reads them."""

import os
import ssl
import zipfile
import zlib
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from ome.errors import UserError, few
from ome.geo.vsi import SUPPORTED, VsiPath

_START: Final = 1 << 16
_FORCED: Final = {
    # Sidecars may have any format and refer to other files, and each probe is a request.
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    # Without a cache, a long session notices that a scene was replaced.
    "CPL_VSIL_CURL_NON_CACHED": ":".join(f"/{system}/" for system in SUPPORTED if system != "vsizip"),
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

_LOGIN: Final = (401, 403, 407)
"""Status codes of a server or proxy that asks for a login."""

_CERTIFICATE: Final = (
    "check the address, and name a certificate to trust by CURL_CA_BUNDLE=FILE in the environment"
)
_TRUSTED: Final = ("GDAL_CURL_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
"""Variables for a file of certificates; rasterio sets the first, which GDAL prefers, to certifi's file."""

WITHOUT_HEAD: Final = {"CPL_VSIL_CURL_USE_HEAD": "NO"}
"""For servers and signed URLs that allow only GET: GDAL sends GET and aborts a response of the whole file."""


class RefusedError(UserError):
    """A request that GDAL's may succeed: it has logins, certificates and proxies that this one does not."""


class Probe(NamedTuple):
    """What is known of a scene before GDAL opens it.

    Attributes:
        state: ETag, date and size of a URL, which change when it is replaced; empty for an archive or bucket,
            and for a URL that only GDAL can read.
        start: Its first bytes; empty for a bucket, and for a URL that only GDAL can read.
        refusal: Why a URL was not read; empty if it was.
    """

    state: list[Any]
    start: bytes
    refusal: str = ""


def reading_options() -> dict[str, str]:
    """GDAL's options for remote and archived scenes."""
    trusted = {_TRUSTED[0]: file} if (file := _certificates()) else {}
    return {key: value for key, value in _DEFAULTS.items() if key not in os.environ} | _FORCED | trusted


def _certificates() -> str:
    """The file of trusted certificates that the user names; empty for the default."""
    files = (os.environ.get(key, "") for key in _TRUSTED)
    return next((file for file in files if file and Path(file).parent.name != "certifi"), "")


def probe(scene: VsiPath) -> Probe:
    """Requests the start of a scene before GDAL does, for an error message that says why it cannot be read.

    Raises:
        UserError: It does not exist, cannot be read by windows, or is damaged in its archive.
    """
    if scene.url:
        try:
            headers, start = fetch(scene.url, str(scene), _START)
        except RefusedError as error:
            return Probe([], b"", str(error))
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
        RefusedError: The server asks for a login, or cannot be reached without GDAL's variables, if any.
        UserError: The request failed otherwise; the message says why.
    """
    request = Request(url, headers={"Range": f"bytes=0-{most - 1}"} if by_range else {})  # noqa: S310 - http
    try:
        timeout = float(os.environ.get("GDAL_HTTP_TIMEOUT", _DEFAULTS["GDAL_HTTP_TIMEOUT"]))
        trusted = ssl.create_default_context(cafile=_certificates() or None)
        with urlopen(request, timeout=timeout, context=trusted) as answer:  # noqa: S310
            if by_range and (answer.status != 206 or "Content-Range" not in answer.headers):
                raise UserError(
                    f"{name}: its server does not support range requests: download it, and map the file"
                )
            return answer.headers, answer.read(most)
    except HTTPError as error:
        phrase = " ".join(str(error.reason).split())
        if error.code in _LOGIN:
            raise RefusedError(
                f"{name} is not public ({error.code} {phrase}): give its signed address, or a login by the "
                "environment variables of GDAL"
            ) from error
        raise UserError(f"{name} {_refusal(error.code)} ({error.code} {phrase})") from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        remedy = _CERTIFICATE if isinstance(reason, ssl.SSLError) else "check the address and the network"
        # Tries of GDAL's own, which would take minutes, are of use only with settings of its own.
        kind = RefusedError if any(_is_of_gdal(key) for key in os.environ) else UserError
        raise kind(f"{name} cannot be reached ({reason}): {remedy}") from error


def _is_of_gdal(variable: str) -> bool:
    """Whether an environment variable changes how GDAL reaches a server, such as by a proxy."""
    return variable.startswith(("GDAL_HTTP_", "GDAL_HTTPS_", "GDAL_PROXY_")) and variable not in _DEFAULTS


def _refusal(code: int) -> str:
    if code in {404, 410}:
        return "does not exist: check the address"
    return "is empty" if code == 416 else "cannot be downloaded: try again later"


def _start_of_member(scene: VsiPath, archive: Path, name: str) -> bytes:
    """The first bytes of a member; reads it to its end, since GDAL does not verify archives' checksums."""
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [name for name in opened.namelist() if not name.endswith("/")]
            if name not in members and (name or len(members) != 1):
                content = few(members) or "nothing"
                raise UserError(f"{scene} does not exist: {archive.name} holds {content}")
            with opened.open(name or members[0]) as member:
                start = member.read(_START)
                while member.read(1 << 20):
                    pass
                return start
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, ValueError, EOFError) as error:
        raise UserError(
            f"{scene} is damaged or cannot be unpacked ({error}): copy or download it again"
        ) from error
