"""Scenes that are no files of this disk: URLs, archives, STAC items. The network is a server of this test."""

import json
import os
import re
import shutil
import subprocess
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certifi
import numpy as np
import pytest
from PIL import Image
from rasterio.errors import RasterioIOError

import ome
from ome.data.byte_image import open_scene
from ome.errors import UserError
from ome.geo.remote import reading_options
from ome.geo.scene_files import remote_state
from ome.geo.stac import raster_of
from ome.geo.vsi import VsiPath, full_address, scene_at
from ome.inference.map_files import map_name
from tests.conftest import forked
from tests.test_maps import random_scene, write
from tests.test_predict import BASE, Run, classes_of
from tests.trained_runs import make_run
from tests.web import Web, serving

BANDS = (1, 2, 3)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    (tmp_path / "web").mkdir()
    with serving(tmp_path / "web") as server:
        yield server


@pytest.mark.parametrize(
    ("typed", "path", "name"),
    [
        ("https://h.org/a/city.tif", "/vsicurl/https://h.org/a/city.tif", "city"),
        ("https://h.org/a/city.tif?sig=a/b.c", "/vsicurl/https://h.org/a/city.tif?sig=a/b.c", "city"),
        ("https://h.org/my city.tif#x", "/vsicurl/https://h.org/my%20city.tif", "my city"),
        ("https://h.org/a%2Fb.tif", "/vsicurl/https://h.org/a%2Fb.tif", "b"),
        (Path("https://h.org/city.tif"), "/vsicurl/https://h.org/city.tif", "city"),
        ("s3://bucket/a/city.tif", "/vsis3/bucket/a/city.tif", "city"),
        ("/vsicurl/http://h.org/city.tif", "/vsicurl/http://h.org/city.tif", "city"),
        ("/vsizip//data/a.zip/b/what?.tif", "/vsizip//data/a.zip/b/what?.tif", "what?"),
        ("/vsizip//vsicurl/https://h.org/a.zip/b.tif", "/vsizip//vsicurl/https://h.org/a.zip/b.tif", "b"),
    ],
)
def test_addresses_become_what_gdal_opens(typed: str | Path, path: str, name: str) -> None:
    scene = scene_at(typed)
    assert isinstance(scene, VsiPath)
    assert (scene.path, map_name(scene)) == (path, name)
    assert "sig=" not in str(scene), "messages hold no signatures"


@pytest.mark.parametrize("typed", ["data/city.tif", "/data/http/city.tif", "C:city.tif", "http", "vsizip/x"])
def test_paths_stay_paths(typed: str) -> None:
    assert scene_at(typed) == Path(typed)
    assert scene_at(f"file:///{typed}") == Path(f"/{typed}")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            "ftp://h.org/x.tif",
            "ftp://h.org/x.tif is not supported: give https, http, s3, gs, az:// or a file",
        ),
        ("/vsistdin/x.tif", "/vsistdin/ is not supported, only /vsicurl/"),
        ("/vsizip//vsimem/x.zip/y.tif", "/vsimem/ is not supported"),
        ("/vsicurl/file:///etc/passwd", "give /vsicurl/https://"),
        ("/vsicurl?url=file:///etc/passwd", "give /vsicurl/https://"),
        ("http://[::1", r"^http://\[::1 is not an address: Invalid IPv6 URL"),
        (
            "https://h.org:abc/x.tif?sig=1",
            "^https://h.org:abc/x.tif is not an address: Port could not be cast",
        ),
        ("http://h.org:99999/x.tif", "is not an address: Port out of range"),
        ("s3://[b/x.tif", "is not an address"),
        ("file://[h/x.tif", "is not an address"),
    ],
)
def test_other_addresses_are_refused(typed: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        scene_at(typed)


def test_a_url_is_read_by_windows(web: Web) -> None:
    """Hardly a byte of a large file for one window of it; the pixels are those of the file."""
    noise = np.random.default_rng(0).integers(1, 255, (3, 2048, 2048)).astype("uint8")
    file = write(
        web.folder / "city.tif", noise, tiled=True, blockxsize=256, blockysize=256, compress="deflate"
    )
    with open_scene(scene_at(f"{web.address}/city.tif?a=1"), BANDS) as scene:
        np.testing.assert_array_equal(
            scene.read(300, 1200, 64, 64).transpose(2, 0, 1), noise[:, 300:364, 1200:1264]
        )
        assert scene.valid(0, 0, 64, 64).any()
    size = file.stat().st_size
    assert 0 < sum(web.sent) < size / 10
    web.sent.clear()
    with open_scene(scene_at(f"{web.address}/city.tif"), BANDS) as scene:
        for row in range(0, 2048, 256):
            scene.read(row, 0, 256, 2048)
    assert max(web.sent) < size / 3
    assert sum(web.sent) < size * 1.2


def test_a_scene_that_is_lost_while_it_is_read_is_one_line(
    web: Web, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
    noise = np.random.default_rng(0).integers(1, 255, (3, 512, 512)).astype("uint8")
    file = write(web.folder / "city.tif", noise, tiled=True, blockxsize=64, blockysize=64)
    with open_scene(scene_at(f"{web.address}/city.tif"), BANDS) as scene:
        file.unlink()
        with pytest.raises(UserError, match=r"damaged at rows 400\.\.409, .*: try again, or download it"):
            scene.read(400, 400, 10, 10)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for this machine, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=me -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*command.split(), "-keyout", path, "-out", path], check=True, capture_output=True)
    return path


TRUSTED = ("GDAL_CURL_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
REMOTE = ["city.tif", "item.json"]


@pytest.mark.parametrize("name", REMOTE)
@pytest.mark.parametrize("variable", TRUSTED)
def test_certificates_that_gdal_or_python_is_told_of_count_for_both(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, name: str
) -> None:
    for key in TRUSTED:
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv(TRUSTED[0], certifi.where())  # as rasterio does while it is imported
    pixels = random_scene(30, 40)
    write(tmp_path / "city.tif", pixels)
    item(tmp_path / "item.json", data={"href": "city.tif"})
    with serving(tmp_path, certificate) as web:
        # Not of the raster: libcurl goes on trusting a certificate for the life of the process.
        refused = refusal(f"{web.address}/item.json")
        assert re.search("cannot be reached .*CERTIFICATE_VERIFY_FAILED.*CURL_CA_BUNDLE=FILE in the", refused)
        assert TRUSTED[0] not in reading_options()
        monkeypatch.setenv(variable, str(certificate))
        assert reading_options()[TRUSTED[0]] == str(certificate)
        with open_scene(raster_of(scene_at(f"{web.address}/{name}")), BANDS) as scene:
            np.testing.assert_array_equal(scene.read(0, 0, 30, 40).transpose(2, 0, 1), pixels)


BASIC = "Basic " + b64encode(b"me:secret").decode()


@pytest.mark.parametrize(
    ("login", "variables"),
    [
        (BASIC, {"GDAL_HTTP_USERPWD": "me:secret"}),
        (BASIC, {"GDAL_HTTP_NETRC_FILE": "netrc"}),
        (BASIC, {"GDAL_HTTP_HEADERS": f"Authorization: {BASIC}"}),
        ("Bearer x", {"GDAL_HTTP_AUTH": "BEARER", "GDAL_HTTP_BEARER": "x"}),
        ("", {"GDAL_HTTP_UNSAFESSL": "YES"}),
    ],
)
def test_gdals_variables_open_what_is_not_public(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: str, variables: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret")
    pixels = random_scene(30, 40)
    write(tmp_path / "city.tif", pixels)
    with serving(tmp_path, None if login else certificate) as web:
        web.login = login
        url = scene_at(f"{web.address}/city.tif")
        why = r"is not public \(401 .*\): give its signed address, or a login" if login else r"\(_ssl.c"
        assert re.search(why, refusal(f"{web.address}/city.tif"))
        with pytest.raises(UserError, match=why):
            remote_state(url)
        for key, value in variables.items():
            monkeypatch.setenv(key, value)
        with open_scene(url, BANDS) as scene:
            np.testing.assert_array_equal(scene.read(0, 0, 30, 40).transpose(2, 0, 1), pixels)
        assert remote_state(url)[1:3] == [30, 40]


@pytest.mark.parametrize(
    ("scheme", "variable"), [("s3", "AWS"), ("gs", "GS"), ("az", "AZURE")], ids=["s3", "gs", "az"]
)
def test_buckets_without_a_login_name_the_variable_of_public_ones(
    monkeypatch: pytest.MonkeyPatch, scheme: str, variable: str
) -> None:
    monkeypatch.setattr("ome.geo.scene_files.DatasetReader", without_login)
    monkeypatch.setattr("ome.geo.raster_file.DatasetReader", without_login)
    why = f"and the login; a public bucket needs {variable}_NO_SIGN_REQUEST=YES"
    assert why in refusal(f"{scheme}://bucket/city.tif")
    with pytest.raises(UserError, match=why):
        remote_state(scene_at(f"{scheme}://bucket/city.tif"))


def without_login(*_: object, **__: object) -> None:
    raise RasterioIOError("no credentials")


def test_a_server_may_know_get_alone(web: Web) -> None:
    pixels = random_scene(30, 40)
    write(web.folder / "city.tif", pixels)
    web.head = False
    with open_scene(scene_at(f"{web.address}/city.tif"), BANDS) as scene:
        np.testing.assert_array_equal(scene.read(0, 0, 30, 40).transpose(2, 0, 1), pixels)


def test_maps_of_a_file_and_of_its_url_are_equal(run_here: Run, tmp_path: Path, web: Web) -> None:
    run, scene = make_run(tmp_path / "run"), write(web.folder / "city.tif", random_scene(90, 70))
    url = f"{web.address}/city.tif"
    run_here(*BASE, f"stage.predict.scene={url}")
    expected = ome.predict(scene, run, flip=False, precision="32-true").classes
    np.testing.assert_array_equal(classes_of(tmp_path / "run/predict/city/city.tif"), expected)
    np.testing.assert_array_equal(ome.predict(url, run, flip=False, precision="32-true").classes, expected)
    ome.map_scene(url, run, tmp_path / "maps", flip=False, precision="32-true")
    np.testing.assert_array_equal(classes_of(tmp_path / "maps/city.tif"), expected)


def test_a_url_is_mapped_again_when_it_was_replaced(
    run_here: Run, tmp_path: Path, web: Web, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "run")
    command = (*BASE, f"stage.predict.scene={web.address}/city.tif")
    up_to_date = []
    for scene in (random_scene(90, 70), None, random_scene(70, 90)):
        if scene is not None:
            write(web.folder / "city.tif", scene)
        run_here(*command)
        up_to_date.append("up to date" in capsys.readouterr().out)
    assert up_to_date == [False, True, False]
    assert classes_of(tmp_path / "run/predict/city/city.tif").shape == (70, 90)


def test_the_state_of_a_bucket_or_remote_archive_changes_with_its_pixels(web: Web) -> None:
    """Read through `/vsizip//vsicurl/`, of which GDAL knows as little as of a bucket."""
    scene, states = scene_at(f"/vsizip//vsicurl/{web.address}/a.zip/city.tif"), []
    for seed in (0, 0, 1):
        noise = np.random.default_rng(seed).integers(0, 9, (1, 300, 300)).astype("uint8")
        city = write(web.folder / "city.tif", noise, compress="deflate")
        with zipfile.ZipFile(web.folder / "a.zip", "w") as archive:
            archive.write(city, "city.tif")
        states.append(remote_state(scene))
    assert states[0] == states[1] != states[2]
    assert states[0][0] == full_address(scene)


def test_the_command_takes_a_url(tmp_path: Path, web: Web) -> None:
    """With characters of shells and of settings, and from another folder than the run's."""
    run = make_run(tmp_path / "run")
    write(web.folder / "my city.tif", random_scene(64, 64))
    status, printed = forked(tmp_path, *BASE, f"stage.predict.scene='{web.address}/my city.tif?first=1'")
    assert status == 0, printed
    status, printed = forked(tmp_path, "predict", str(run), f"{web.address}/my city.tif?a=b,c&d={{e}}")
    assert "holds the result of stage=predict of" in printed, "another query may be another scene"
    (run / "predict/my city").rename(tmp_path / "moved")
    status, printed = forked(tmp_path, "predict", str(run), f"{web.address}/my city.tif?a=b,c&d={{e}}")
    assert status == 0, printed
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(web.folder / "my city.tif", "x/town.tif")
    status, printed = forked(tmp_path, "predict", str(run), "/vsizip/a.zip/x/town.tif")
    assert status == 0, printed
    for name in ("my city", "town"):
        assert (run / f"predict/{name}/{name}.tif").is_file()
    other = make_run(tmp_path / "b, c", seed=1)
    status, printed = forked(tmp_path, "predict", "run", str(other), "/vsizip/a.zip/x/town.tif")
    assert status == 0, printed
    record = json.loads((run / "predict/town/manifest.json").read_text())
    assert record["counts"]["network"] == f"seg/weak, {other}/seg/weak"


def vrt_of(path: Path) -> bytes:
    return (
        '<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{path}</SourceFilename>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    ).encode()


WMS = b"<GDAL_WMS><Service name='TMS'><ServerUrl>http://127.0.0.1:1/${z}</ServerUrl></Service></GDAL_WMS>"


def test_what_is_no_raster_is_one_line(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    local = write(web.folder / "city.tif", random_scene(20, 20))
    for name, content in (
        ("vrt.tif", vrt_of(local)),
        ("wms.tif", WMS),
        ("page", b"<html>"),
        ("x.vrt", vrt_of(local)),
    ):
        (web.folder / name).write_bytes(content)
        assert "cannot be opened as GTiff, PNG, JPEG (" in refusal(f"{web.address}/{name}")
    (web.folder / "none.tif").write_bytes(b"")
    assert refusal(f"{web.address}/none.tif")
    assert refusal(f"{web.address}/nowhere.tif?sig=x").startswith(
        f"{web.address}/nowhere.tif does not exist: check the address (404"
    )
    turned = Image.Exif()
    turned[274] = 6
    for ending in ("jpg", "tif"):
        Image.new("RGB", (40, 30)).save(web.folder / f"turned.{ending}", exif=turned)
        assert "stored rotated (EXIF orientation 6)" in refusal(f"{web.address}/turned.{ending}")
    monkeypatch.setenv("GDAL_HTTP_TIMEOUT", "0.2")
    web.seconds = 1
    assert "cannot be reached (timed out)" in refusal(f"{web.address}/city.tif")
    web.seconds, web.ranges = 0, False
    assert "its server does not support range requests: download it" in refusal(f"{web.address}/city.tif")
    monkeypatch.setattr("ome.geo.raster_file.DatasetReader", pytest.fail)  # its retries would take minutes
    monkeypatch.setattr("ome.geo.raster_file.DatasetReader", pytest.fail)  # its retries would take minutes
    assert "cannot be reached" in refusal("http://127.0.0.1:1/city.tif")


def test_sidecars_of_a_url_are_not_read(web: Web) -> None:
    """A mask of another format, which GDAL would open and which would read any file."""
    local = write(web.folder / "city.tif", random_scene(20, 20))
    for ending in (".msk", ".ovr", ".aux.xml"):
        (web.folder / f"city.tif{ending}").write_bytes(vrt_of(local))
    with open_scene(scene_at(f"{web.address}/city.tif"), BANDS) as scene:
        assert scene.valid(0, 0, 20, 20).all()


def refusal(typed: str) -> str:
    with pytest.raises(UserError) as raised, open_scene(raster_of(scene_at(typed)), BANDS):
        pass
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_members_of_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = random_scene(50, 40)
    city = write(tmp_path / "city.tif", pixels)
    with zipfile.ZipFile("one.zip", "w") as archive:
        archive.write(city, "in/city.tif")
    for typed in (
        "/vsizip/one.zip/in/city.tif",
        f"/vsizip/{tmp_path}/one.zip/in/city.tif",
        "/vsizip/{one.zip}/in/city.tif",
        "/vsizip/one.zip",
        "one.zip",
        f"{tmp_path}/one.zip",
        tmp_path / "one.zip",
    ):
        with open_scene(scene_at(typed), BANDS) as scene:
            np.testing.assert_array_equal(scene.read(0, 0, 50, 40).transpose(2, 0, 1), pixels)
        assert map_name(scene_at(typed)) == ("city" if "city" in str(typed) else "one")
    assert "one.zip holds in/city.tif" in refusal("/vsizip/one.zip/town.tif")
    assert "does not exist: give /vsizip/ARCHIVE.zip/MEMBER" in refusal("/vsizip/two.zip/city.tif")
    content = bytearray(Path("one.zip").read_bytes())
    content[len(content) // 2] ^= 1  # a pixel, whose change only the checksum tells
    Path("one.zip").write_bytes(content)
    assert "is damaged or cannot be unpacked (Bad CRC-32" in refusal("/vsizip/one.zip/in/city.tif")


def item(path: Path, **assets: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"type": "Feature", "id": "x", "assets": assets}))
    return path


COG = "image/tiff; application=geotiff; profile=cloud-optimized"


@pytest.mark.parametrize(
    ("asset", "chosen"),
    [
        (None, "visual.tif"),
        ("B04", "b04.tif"),
    ],
)
def test_items_name_their_rasters(web: Web, asset: str | None, chosen: str) -> None:
    assets: dict[str, dict[str, Any]] = {
        "thumbnail": {"href": "small.jpg", "type": "image/jpeg", "roles": ["thumbnail"]},
        "B04": {"href": "./b04.tif", "type": COG},
        "true": {"href": "visual.tif", "type": COG, "roles": ["visual"]},
        "metadata": {"href": "x.xml", "type": "application/xml"},
    }
    local = item(web.folder / "item.json", **assets)
    assert raster_of(local, asset) == web.folder / chosen
    raster = raster_of(scene_at(f"{web.address}/item.json?sig=1"), asset)
    assert raster == scene_at(f"{web.address}/{chosen}")


def test_items_that_leave_a_choice_list_it(tmp_path: Path) -> None:
    thumb = {"href": "t.png", "type": "image/png", "roles": ["thumbnail"]}
    two = item(tmp_path / "two.json", red={"href": "r.tif", "type": COG}, blue={"href": "b.tif"}, thumb=thumb)
    listed = f"type stage.predict.asset=NAME of red ({COG}), blue (no type)"
    assert refusal(str(two)) == f"{two} has 2 raster assets: {listed}"
    with pytest.raises(UserError, match="has no asset green: type stage"):
        raster_of(two, "green")
    with pytest.raises(UserError, match="asset=red needs a STAC item"):
        raster_of(tmp_path / "city.tif", "red")
    for content in ("", "[]", '{"type": "Feature"}', '{"type": "Catalog", "links": []}', "[" * 100_000):
        two.write_text(content)
        assert "is not a STAC item" in refusal(str(two))


def test_items_lead_nowhere_unasked(tmp_path: Path, web: Web) -> None:
    (tmp_path / "in").mkdir()
    for href in ("../out.tif", str(tmp_path / "out.tif"), f"{web.address}/x.tif", "file:///etc/passwd"):
        local = item(tmp_path / "in/item.json", data={"href": href})
        assert "outside its folder: type stage.predict.allow_external=true" in refusal(str(local))
        assert raster_of(local, allow_external=True)
    item(web.folder / "item.json", data={"href": "file:///etc/passwd"})
    assert "a local file" in refusal(f"{web.address}/item.json")
    for path in ("/etc/passwd", "/vsizip/a.zip/x.tif"):
        item(web.folder / "item.json", data={"href": path})  # of the server
        assert raster_of(scene_at(f"{web.address}/item.json")) == scene_at(f"{web.address}{path}")


def test_the_map_of_an_item_is_called_like_it(run_here: Run, tmp_path: Path, web: Web) -> None:
    make_run(tmp_path / "run")
    write(web.folder / "visual.tif", random_scene(64, 64))
    item(web.folder / "S2A_33.json", visual={"href": "visual.tif", "type": COG})
    run_here(*BASE, f"stage.predict.scene={web.address}/S2A_33.json")
    path = tmp_path / "run/predict/S2A_33/S2A_33.tif"
    first = path.stat().st_mtime_ns
    run_here(*BASE, f"stage.predict.scene={web.address}/S2A_33.json")
    assert path.stat().st_mtime_ns == first
    os.utime(web.folder / "visual.tif", ns=(1, 1))
    run_here(*BASE, f"stage.predict.scene={web.address}/S2A_33.json")
    assert path.stat().st_mtime_ns != first
