"""The folder of an artefact. Only this module deletes and replaces, and only what the engine has written.

What a user has changed is moved aside first, see `ome.pipeline.user_files`.

A finished folder holds a manifest, a partial one a mark file. A folder without either, or with that of
another artefact, is never replaced: an error names it before any work begins.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ome.distributed.collectives import is_rank_zero
from ome.errors import UserError
from ome.files import is_file, remove_temporaries, sync
from ome.pipeline.artifacts import another_place
from ome.pipeline.checksums import damaged, remove_from, write_listing
from ome.pipeline.manifest import NAME, Manifest
from ome.pipeline.marks import (
    MARK,
    PARTIAL,
    read_if_whole,
    read_mark,
    record_in,
    write_mark,
    writes_noted,
    written_in,
)
from ome.pipeline.truncated_files import remove_broken
from ome.pipeline.user_files import check_added, set_changed_aside, set_foreign_aside
from ome.progress import console


class Place:
    """The folder of one artefact, and the partial folder in which it is written.

    Args:
        folder: Folder of the finished artefact.
        artefact: Name of the artefact, e.g. `predict of /data/city.tif`.
        artefact_of: Gives the same name from a manifest.

    Raises:
        UserError: The folder is the root of the disk, or named like a partial folder.
    """

    def __init__(self, folder: Path, artefact: str, artefact_of: Callable[[Manifest], str]) -> None:
        # Follows a link; `.` and `..` have no name to which `.partial` could be appended.
        if folder.is_symlink() or folder.name in {"", ".."}:
            folder = folder.resolve()
        if not folder.name or folder.name.lower().endswith(PARTIAL):
            raise UserError(f"{folder} cannot be the folder of {artefact}: give it another name")
        self.folder, self.artefact = folder, artefact
        self.partial = folder.with_name(folder.name + PARTIAL)
        self._artefact_of = artefact_of

    def check(self) -> None:
        """Checks the folders that would be replaced, and the name of the artefact.

        Raises:
            UserError: One of them holds something else than this artefact.
            UnicodeEncodeError: The name is not in UTF-8, so that the mark of an empty folder would fail.
        """
        self.artefact.encode()
        self.check_finished()
        self._check(self.partial)

    def check_finished(self) -> None:
        """Like `check`, without the partial folder, which another process may be using."""
        self._check(self.folder)

    def _check(self, path: Path) -> None:
        is_file(path)  # refuses a link to nothing, such as a disk that is not mounted
        # A kill after the folder was created and before its mark may leave the mark's temporary file.
        if not path.exists() or (
            path.is_dir() and all(entry.name.startswith(f".{MARK}.") for entry in path.iterdir())
        ):
            return
        if (other := self._artefact_at(path)) == self.artefact:
            return
        what = f"holds the result of stage={other}" if other else "was not written by ome and is not empty"
        raise UserError(
            f"{path} {what}, and that of stage={self.artefact} would replace it: move it away, or choose "
            f"another {another_place(self.artefact.partition(' ')[0])}"
        )

    def _artefact_at(self, path: Path) -> str | None:
        """The artefact that a finished or partial folder holds; None if the engine did not write it."""
        record = record_in(path)
        if isinstance(record, Manifest):
            return self._artefact_of(record)
        return self.artefact if record == "" else record

    def recover(self) -> None:
        """Moves a complete partial folder to its final place; can be repeated after a kill at any point.

        A folder with missing or damaged files becomes partial again, without those files and the ones
        written after them.
        """
        if not (self.partial / NAME).exists():
            return
        manifest, wrong = read_if_whole(self.partial), None
        if manifest is not None:
            wrong = damaged(self.partial, manifest.files, verify=True)
            if wrong == []:
                self._replace()
                return
        if manifest is None or wrong is None:
            write_mark(self.partial, self.artefact, "", written_in(self.partial))
            console.print(
                f"[yellow]{self.folder}: its list of files is damaged, everything in it is computed again[/]",
            )
        else:
            kept = remove_from(self.partial, wrong[0])
            write_mark(self.partial, self.artefact, manifest.fingerprint, kept)
            console.print(
                f"[yellow]{self.folder}: {len(wrong)} of {manifest.files} files are missing or have changed, "
                f"the first is {wrong[0]}; {(manifest.files or 0) - len(kept)} are computed again[/]",
            )
        (self.partial / NAME).unlink()  # last, so that a kill before it repeats the recovery

    def set_damaged_aside(self, fingerprint: str, *, verify: bool) -> None:
        """Turns a result with damaged files into a partial one."""
        present = Manifest.read(self.folder)
        if present is None or present.fingerprint != fingerprint:
            return
        if (wrong := damaged(self.folder, present.files, verify=verify)) != []:
            check_added(self.folder)
            set_changed_aside(self.folder, wrong or ())
            set_foreign_aside(self.partial, self.folder)
            self._clear(self.partial)
            self.folder.rename(self.partial)
            self.recover()

    def open(self, fingerprint: str, *, fresh: bool) -> None:
        """Prepares the partial folder: keeps complete files of the same fingerprint, removes all others.

        Raises:
            UserError: The finished folder, which will be replaced, holds files that the engine did not write.
        """
        check_added(self.folder)
        present = read_if_whole(self.folder)
        if present is not None:
            changed = damaged(self.folder, present.files, verify=False, replaced=True)
            set_changed_aside(self.folder, changed or ())
        set_foreign_aside(self.partial, self.folder)
        if fresh or not (self.partial / MARK).exists() or read_mark(self.partial)[0] != fingerprint:
            self._clear(self.partial)
            self.partial.mkdir(parents=True)
            write_mark(self.partial, self.artefact, fingerprint, ())
        remove_temporaries(self.partial)
        if broken := remove_broken(self.partial):
            console.print(
                f"[yellow]{self.partial}: {broken} is truncated; it and the files written after it are "
                "computed again[/]",
            )

    def forget(self) -> None:
        """Marks the partial folder as one that no command resumes."""
        write_mark(self.partial, self.artefact, "", written_in(self.partial))

    def finish(self, manifest_of: Callable[[int], Manifest]) -> Manifest:
        """Lists the files, writes the manifest with their number, and moves the folder to its place."""
        manifest = manifest_of(write_listing(self.partial))
        manifest.write(self.partial)
        sync(self.partial)
        self._replace()
        return manifest

    @contextmanager
    def written(self) -> Iterator[None]:
        """Notes what the block writes; removes the partial folder if it fails before it wrote anything."""
        try:
            with writes_noted(self.partial):
                yield
        except BaseException:
            if is_rank_zero() and [path.name for path in self.partial.iterdir()] == [MARK]:
                self._clear(self.partial)
            raise

    def _replace(self) -> None:
        self._clear(self.folder)
        (self.partial / MARK).unlink(missing_ok=True)
        self.partial.rename(self.folder)
        sync(self.folder.parent)

    def _clear(self, path: Path) -> None:
        """Removes a folder, its mark and manifest last, so that a killed removal can be repeated."""
        self._check(path)
        if not path.exists():
            return
        for entry in sorted(path.iterdir(), key=lambda entry: entry.name in {MARK, NAME}):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        if path.is_symlink():
            path.unlink()
        else:
            path.rmdir()
