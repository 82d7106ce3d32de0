"""The command line `ome tags FOLDER`."""

import argparse
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.markup import escape

from ome.data.raw_source import image_name
from ome.data.sheets import default_table
from ome.data.suggestions import Suggestion, read_suggestions
from ome.data.tiles import Tile
from ome.errors import UserError
from ome.extras import require
from ome.faults import disk_fault
from ome.pipeline.locks import locked
from ome.progress import console
from ome.tagging.items import Item, Key, find_images, windows_of
from ome.tagging.options import parser
from ome.tagging.pictures import Pictures
from ome.tagging.session import Session
from ome.tagging.table import Table


def main(arguments: Sequence[str]) -> int:
    """Runs the command until it is interrupted.

    Args:
        arguments: The words after `ome tags`.

    Returns:
        The exit status: 0, or 1 after a user error, which is printed in one line.
    """
    try:
        serve(parser().parse(arguments))
    except (UserError, OSError) as error:
        line = str(error) if isinstance(error, UserError) else disk_fault(error)
        if line is None:
            raise
        console.print(f"[bold red]error:[/] {escape(line)}")
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def serve(options: argparse.Namespace) -> None:
    """Serves the page until it is interrupted.

    Raises:
        UserError: A file is missing or invalid, another server uses the table, or the port is in use.
    """
    require("tags", "ome tags")
    import uvicorn  # noqa: PLC0415 - an extra

    from ome.tagging.server import make_app  # noqa: PLC0415 - needs starlette

    folder = Path(options.folder)
    path = Path(options.table) if options.table else default_table(folder)
    images = find_images(folder)
    table = Path(os.path.realpath(path))  # of a circle of links, too, which the table's reader reports
    lock = table.with_name(f".{table.name}.lock")
    with locked(lock, f"{path} (--table)", wait=False, remedy="stop it, or use its page"):
        session = open_session(images, path, options)
        app = make_app(session, Pictures(options.bands, options.range), folder.resolve().name)
        with _listen(options.port) as listener:
            address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            console.print(f"{len(session.items)} images, table {path}")
            console.print(f"open [bold]{address}[/] in a browser; Ctrl+C to quit")
            uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off")).run([listener])


def open_session(images: Sequence[Item], path: Path, options: argparse.Namespace) -> Session:
    """Reads the table and the suggestions, and sorts the items by uncertainty if there are suggestions.

    Raises:
        UserError: Table or suggestions are invalid or do not match the images.
    """
    table = Table.read(path, windows=options.tile is not None)
    if table.form == "windows" and options.tile is None:
        raise UserError(f"{path} is a table of windows: give the size of their grid, e.g. --tile 256")
    if table.form != "windows" and options.tile is not None:
        raise UserError(f"{path} is a table of images: omit --tile, or give another --table")
    items = list(images)
    if options.tile is not None:
        items = windows_of(images, options.tile, (key for key in table.rows if isinstance(key, Tile)))
    suggestions: dict[Key, Suggestion] = {}
    if options.suggestions:
        suggestions = _by_key(read_suggestions(Path(options.suggestions)), items, options.suggestions)
        items.sort(key=lambda item: -suggestions[item.key].uncertainty if item.key in suggestions else 1)
    suggested = next(iter(suggestions.values())).probabilities if suggestions else ()
    _report_missing_images(table, images)
    return Session(items, table, [*options.classes, *suggested], suggestions)


def _by_key(
    suggestions: Mapping[Tile, Suggestion], items: Sequence[Item], path: str
) -> dict[Key, Suggestion]:
    """The suggestions of the items by their keys."""
    by_key: dict[Key, Suggestion] = {}
    whole = items[0].tile is None
    for tile, suggestion in suggestions.items():
        key: Key = tile.scene if whole else tile
        if key in by_key:
            raise UserError(
                f"{path} is about windows: give the size of their grid, e.g. --tile {tile.height}"
            )
        by_key[key] = suggestion
    by_key = {item.key: by_key[item.key] for item in items if item.key in by_key}
    if not by_key:
        raise UserError(f"{path} has no suggestion for these images: is it for another folder or --tile?")
    return by_key


def _report_missing_images(table: Table, images: Sequence[Item]) -> None:
    """Prints how many rows have no image; they stay in the table, but `dataset=custom` will refuse them."""
    names = {item.image for item in images}
    missing = [row.image for row in table.rows.values() if image_name(row.image) not in names]
    if missing:
        console.print(
            f"[yellow]{len(missing)} rows of the table have no image here[/], the first is "
            f"{escape(missing[0])}; they stay in the table",
        )


@contextmanager
def _listen(port: int) -> Iterator[socket.socket]:
    """A socket that only this machine can reach."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(
                f"cannot use port {port} ({error.strerror}): give another, e.g. --port 0"
            ) from error
        listener.listen()
        yield listener
