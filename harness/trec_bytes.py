"""The bytes under TREC files: opened by suffix, read in blocks of lines, written whole or not at all.

A suffix decides how a file is opened: `.gz`, `.zst`, `.parquet`, anything else is plain text.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import os
import shutil
import zlib
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Protocol

from harness.errors import InputError

__all__ = [
    "BLOCK",
    "BYTE_ORDER_MARK",
    "Writer",
    "byte_blocks",
    "compress",
    "file_hash",
    "is_parquet",
    "open_input",
    "replace_file",
]

BLOCK = 4 << 20
"""Bytes of text a block holds (a block grows only when one line is longer)."""
_CHUNK = 256 << 10  # compressed bytes handed to a decompressor at a time
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MAGIC = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst", b"PAR1": ".parquet"}


def is_parquet(path: str | Path) -> bool:
    """Whether the suffix says Parquet."""
    return Path(path).suffix == ".parquet"


def open_input(path: str | Path) -> io.BufferedReader:
    """The file opened for reading bytes.

    Raises
    ------
    InputError: there is no such file (names the nearest in its folder), it is a folder, or it may not be
        read.
    """
    try:
        return open(path, "rb")
    except FileNotFoundError:
        folder = Path(path).parent
        names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        near = get_close_matches(Path(path).name, names, n=3, cutoff=0.6)
        hint = f"Near it: {', '.join(str(folder / n) for n in near)}" if near else ""
        if not folder.is_dir():
            hint = f"There is no folder {folder} either."
        raise InputError(path, None, "no such file", hint) from None
    except IsADirectoryError:
        raise InputError(
            path, None, "a folder, not a file", f"Next: name the files in it, as in {path}/*"
        ) from None
    except OSError as error:
        raise InputError(path, None, f"cannot be read: {error.strerror}") from None


def file_hash(path: str | Path) -> str:
    """The sha256 (hex) of a file's bytes as they stand on the disk, compressed or not."""
    with open_input(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def byte_blocks(path: str | Path, size: int = BLOCK, *, keep_mark: bool = False) -> Iterator[bytes]:
    """The text of a file, decompressed, in blocks of about `size` bytes that each end with a newline.

    A byte order mark at the start is left out (unless `keep_mark`), and a newline is added to the last line
    if it has none. A compressed file is never held whole.

    Raises
    ------
    InputError: not readable, empty, cut off or damaged inside its compression, compressed without the suffix,
        or UTF-16.
    """
    rest: list[bytes] = []
    first = True
    with open_input(path) as file:
        for chunk in _chunks(file, Path(path), size):
            if first:
                first = False
                _refuse_other_formats(path, chunk)
                chunk = chunk if keep_mark else chunk.removeprefix(BYTE_ORDER_MARK)
            cut = chunk.rfind(b"\n") + 1
            if not cut:
                rest.append(chunk)
                continue
            if rest:
                yield b"".join([*rest, memoryview(chunk)[:cut]])
            else:
                yield chunk if cut == len(chunk) else chunk[:cut]
            rest = [chunk[cut:]] if cut < len(chunk) else []
    if first:
        raise InputError(path, None, "the file is empty")
    if any(rest):
        yield b"".join([*rest, b"\n"])


def _refuse_other_formats(path: str | Path, start: bytes) -> None:
    for magic, suffix in _MAGIC.items():
        if start.startswith(magic):
            what = f"the content is {suffix[1:]}, the name does not say so"
            raise InputError(path, None, what, f"Next: give the file a name that ends in {suffix}")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(path, 1, "the text is UTF-16, not UTF-8", f"Next: iconv -f UTF-16 -t UTF-8 {path}")


def _chunks(file: IO[bytes], path: Path, size: int) -> Iterator[bytes]:
    """Decompressed pieces, none of them empty, of at least `size` bytes save the last."""
    if path.suffix not in (".gz", ".zst"):
        while chunk := file.read(size):
            yield chunk
        return
    pieces, held = [], 0
    for piece in _inflate(file, path, size) if path.suffix == ".gz" else _unzstd(file, path):
        pieces.append(piece)
        held += len(piece)
        if held >= size:
            yield b"".join(pieces)
            pieces, held = [], 0
    if held:
        yield b"".join(pieces)


def _inflate(file: IO[bytes], path: Path, size: int) -> Iterator[bytes]:
    """gzip members one after the other; zeros after the last are padding, as in gzip itself."""
    member = None
    try:
        while data := file.read(_CHUNK):
            while data:
                if member is None:
                    data = data.lstrip(b"\0")
                    if not data:
                        break
                    member = zlib.decompressobj(wbits=31)
                yield member.decompress(data, size)
                data = member.unconsumed_tail
                if member.eof:
                    data, member = member.unused_data, None
    except zlib.error as error:
        raise InputError(path, None, f"the gzip stream is damaged or is none: {error}") from None
    if member is not None:
        raise InputError(path, None, "the gzip stream is cut off", "Next: fetch or write the file again")


def _unzstd(file: IO[bytes], path: Path) -> Iterator[bytes]:
    import zstandard

    frame = None
    try:
        while data := file.read(_CHUNK):
            while data:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                yield frame.decompress(data)
                data = b""
                if frame.eof:
                    data, frame = frame.unused_data, None
    except zstandard.ZstdError as error:
        raise InputError(path, None, f"the zstd stream is damaged or is none: {error}") from None
    if frame is not None:
        raise InputError(path, None, "the zstd stream is cut off", "Next: fetch or write the file again")


class Writer(Protocol):
    """What takes bytes."""

    def write(self, data: bytes, /) -> object:
        """Take them."""


def compress(file: IO[bytes], suffix: str) -> contextlib.AbstractContextManager[Writer]:
    """A writer over `file` for the suffix. Same bytes in, same bytes out: no name or time in the header."""
    if suffix == ".gz":
        return gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0)
    if suffix == ".zst":
        import zstandard

        return zstandard.ZstdCompressor(level=6, write_checksum=True).stream_writer(file, closefd=False)
    return contextlib.nullcontext(file)


@contextlib.contextmanager
def replace_file(path: str | Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` when the block ends well; else `path` stays as it was.

    The bytes go to a file without a name in the same folder where the system has such files (Linux), so that
    even a kill leaves nothing behind; elsewhere to a temporary name, removed when the block raises.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():  # a pipe or a device is written to, never replaced
        with open(target, "wb") as device:
            yield device
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        nameless = _nameless(target.parent)
        file: IO[bytes] = nameless or temporary.open("w+b")
    except OSError as error:
        raise InputError(path, None, f"cannot be written: {error.strerror}") from None
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if nameless:
                _name(nameless, temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _nameless(folder: Path) -> io.BufferedRandom | None:
    """A file that has no name yet, or None where the system or the folder's file system has none."""
    flag = getattr(os, "O_TMPFILE", None)
    if flag is None:
        return None
    try:
        return os.fdopen(os.open(folder, os.O_RDWR | flag, 0o666), "w+b")
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.EISDIR):
            return None
        raise


def _name(file: IO[bytes], path: Path) -> None:
    """Give a nameless file the name `path`."""
    path.unlink(missing_ok=True)
    try:
        descriptors = os.open("/proc/self/fd", os.O_RDONLY)
        try:
            # Following the link leads to the open file; a folder descriptor makes Python ask for that.
            os.link(str(file.fileno()), path, src_dir_fd=descriptors, follow_symlinks=True)
        finally:
            os.close(descriptors)
    except OSError:  # no /proc, or a kernel that does not link this way
        file.seek(0)
        with open(path, "wb") as copy:
            shutil.copyfileobj(file, copy)
            copy.flush()
            os.fsync(copy.fileno())
