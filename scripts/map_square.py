"""Maps a synthetic scene of 20,000 x 20,000 pixels by `ome.map_scene`, killed half-way and resumed.

    python scripts/map_square.py [--side 20000] [--encoder mobilenet_v2] [--scale 0.5] [--polygons]

The segmenter is an FPN with random weights; time and memory are those of a trained one. Windows do not
overlap (stride 1) and are not mirrored: memory is that of the usual settings, but time is not. The script
starts the mapping in new processes and prints their peak resident memory: of the first up to SIGKILL, of the
second up to its end. It needs Linux, minutes to an hour, and 3 GB of disk, so `make bench` does not run it.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from bench_predict import CLASSES, write_scene
from measuring import heading

import ome
from ome.inference.card import SegmenterCard
from ome.pipeline.manifest import Manifest
from ome.training.checkpoints import save_network


def make_run(folder: Path, encoder: str, tile: int) -> None:
    """Writes an untrained segmenter to the place of that of `stage=seg`."""
    card = SegmenterCard("fpn", encoder, CLASSES, (1, 2, 3), (0, 1, 2), tile, None, 0.5)
    torch.manual_seed(0)
    save_network(card.build(), folder / "seg" / "weak")
    card.write(folder / "seg" / "weak")
    Manifest("seg", "untrained", {}, {}).write(folder / "seg")


def rows_done(folder: Path) -> int:
    """Number of rows of an unfinished map that are on disk."""
    record = folder / "rows" / "rows.json"
    return int(json.loads(record.read_text())) if record.exists() else 0


def peak(process: int) -> int:
    """Peak resident set size of a running process in MB; 0 if it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) // 1024 if lines else 0


def watch(command: list[str], maps: Path, side: int, stop_at: int | None) -> None:
    """Runs a process to its end or kills it at row `stop_at`; prints its time and memory."""
    started, first = time.monotonic(), rows_done(maps)
    highest, predicted, before = 0, None, 0
    with subprocess.Popen(command) as process:  # noqa: S603 - this script
        while process.poll() is None:
            highest = max(highest, peak(process.pid))
            done = rows_done(maps)
            if done == side and predicted is None:
                predicted, before = time.monotonic(), highest
            if stop_at is not None and done >= stop_at:
                process.send_signal(signal.SIGKILL)
                process.wait()
            time.sleep(0.2)
    ended = time.monotonic()
    if stop_at is None and process.returncode:
        sys.exit(process.returncode)
    if predicted is None:
        what = f"killed at row {rows_done(maps)} after {ended - started:.0f} s"
    else:
        what = (
            f"rows {first}..{side} in {predicted - started:.0f} s (peak {before} MB), "
            f"files in {ended - predicted:.0f} s"
        )
    print(f"  {what}; peak {highest} MB", flush=True)


def main() -> None:
    """Parses the command line and runs the benchmark, or the process that it measures."""
    parser = argparse.ArgumentParser(description="A square scene, killed half-way and resumed.")
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--encoder", default="mobilenet_v2")
    parser.add_argument("--scale", type=float, default=0.5, help="prediction.scales; 0.5 costs a quarter")
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--polygons", action="store_true")
    parser.add_argument(
        "--folder",
        type=Path,
        help="folder for scene and maps, which is not deleted; default: a temporary one",
    )
    parser.add_argument("--mapping", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.mapping:
        torch.set_num_threads(options.threads)
        scene, run, maps = (options.folder / name for name in ("square.tif", "run", "maps"))
        files = {"confidence": True, "polygons": options.polygons}
        ome.map_scene(
            scene, run, maps, **files, scales=(options.scale,), flip=False, stride=1.0, batch=4, device="cpu"
        )
        return
    heading(f"{options.side} x {options.side}, FPN on {options.encoder} at scale {options.scale}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        make_run(folder / "run", options.encoder, options.tile)
        write_scene(folder / "square.tif", options.side, options.side)
        command = [sys.executable, *sys.argv, "--mapping", "--folder", str(folder)]
        watch(command, folder / "maps", options.side, options.side // 2)
        watch(command, folder / "maps", options.side, None)
        for path in sorted((folder / "maps").iterdir()):
            print(f"    {path.name}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
