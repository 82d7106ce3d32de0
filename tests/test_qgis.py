"""What QGIS makes of a map, asked of QGIS itself; skipped where none is installed."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.test_maps import make_map, random_scene, write
from tests.trained_runs import CLASSES

ASK = """
import json, os, sys
os.environ["QT_QPA_PLATFORM"] = "offscreen"
from qgis.core import QgsApplication, QgsRasterLayer, QgsVectorLayer
application = QgsApplication([], False)
application.initQgis()
raster = QgsRasterLayer(sys.argv[1] + ".tif", "map")
vector = QgsVectorLayer(sys.argv[1] + ".gpkg", "regions", "ogr")
provider = raster.dataProvider()
print("ANSWER", json.dumps({
    "places": [layer.crs().authid() for layer in (raster, vector)],
    "extents": [layer.extent().toString(1) for layer in (raster, vector)],
    "nodata": provider.sourceNoDataValue(1),
    "overviews": [level.exists for level in provider.buildPyramidList()][:2],
    "legend": [(entry.label, entry.color.name()) for entry in raster.renderer().classes()],
    "regions": [(entry.value(), entry.symbol().color().name()) for entry in vector.renderer().categories()],
}), flush=True)
os._exit(0)
"""
PYTHON = Path("/usr/bin/python3")
"""Debian's package python3-qgis belongs to the system's interpreter."""


@pytest.mark.skipif(
    shutil.which("qgis") is None or not PYTHON.exists(), reason="needs QGIS: apt-get install python3-qgis"
)
def test_qgis_shows_classes_by_name_and_colour(tmp_path: Path) -> None:
    scene = write(tmp_path / "city.tif", random_scene(700, 1100))
    make_map(scene, tmp_path / "map", polygons=True, stride=1.0, batch=32)
    asked = [PYTHON, "-c", ASK, tmp_path / "map/city"]
    printed = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=True).stdout
    answer = json.loads(printed.rpartition("ANSWER")[2])
    colours = [[name, "#" + bytes(colour).hex()] for name, colour in CLASSES.items()]
    assert answer["legend"] == colours
    assert answer["regions"] == colours
    assert answer["places"] == ["EPSG:32633"] * 2
    assert answer["extents"] == ["500000.0,5799650.0 : 500550.0,5800000.0"] * 2
    assert answer["nodata"] == 255
    assert answer["overviews"] == [True, True]
