"""A folder of images and the tagging page's server on it, for the tests."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests import archives

JSON = {"Content-Type": "application/json"}


def write_images(folder: Path, count: int = 4) -> Path:
    """A folder of small images of several kinds, all with three bands."""
    folder.mkdir()
    for number in range(count):
        pixels = archives.image(number, 3, 40, 56)
        kind = ("GTiff", "PNG", "JPEG")[number % 3]
        suffix = {"GTiff": "tif", "PNG": "png", "JPEG": "jpg"}[kind]
        (folder / f"field_{number}.{suffix}").write_bytes(archives.raster(pixels, kind))
    return folder


def deep(
    seed: int, height: int = 40, width: int = 56, bands: int = 4
) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """(H, W, B) of 12 bits."""
    values = np.random.default_rng(seed).gamma(4, 200, (height, width, bands))
    return values.clip(1, 4095).astype(np.uint16)


class Answer(NamedTuple):
    """What the server said."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON has no static type
        return json.loads(self.content)

    @property
    def text(self) -> str:
        return self.content.decode().strip()


class Server(NamedTuple):
    """A running `ome tags`."""

    process: subprocess.Popen[str]
    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Sends a request as the page does, but for the headers given."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            content = body if body is None or isinstance(body, bytes) else json.dumps(body)
            connection.request(method, path, content, ({} if body is None else JSON) | fields)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()


def command(*arguments: str) -> list[str]:
    """The command line, on a port that is free."""
    return [sys.executable, "-m", "ome.tagging", *arguments, "--port", "0"]


@contextmanager
def serving(*arguments: str) -> Iterator[Server]:
    """Runs the page's server as a user does, until the block ends."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    assert process.stdout is not None
    output = ""
    try:
        for line in process.stdout:
            output += line
            if (match := re.search(r"http://127\.0\.0\.1:(\d+)/", line)) is not None:
                yield Server(process, int(match[1]))
                return
        raise AssertionError(output)
    finally:
        process.kill()
        process.communicate()
