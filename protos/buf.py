"""What buf checks: form and names of the contracts, and that they break nobody who built on the baseline."""

import gzip
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from protos.build import DESCRIPTORS, GEN, PROTOS, ROOT

BUF = Path(sys.executable).parent / "buf"
CONFIG = ROOT / "buf.yaml"
BASELINE = PROTOS / "baseline.binpb.gz"
OURS = "regulars."
# FileDescriptorProto's extension in a buf image (buf.alpha.image.v1): field 8042 {is_import = 1}, which keeps
# buf from judging files that others wrote.
_IMPORTED = bytes.fromhex("d2f603020801")


def misformed() -> list[str]:
    """Files that `buf format -w protos` would change."""
    lines = _buf("format", "--diff", "--exit-code", str(PROTOS))
    changed = [line.split()[-1] for line in lines if line.startswith("diff ")]
    return [f"{path}: → .venv/bin/buf format -w protos" for path in changed] or lines


def lint() -> list[str]:
    """Names and shapes that buf's standard rules refuse; buf.yaml lists the exceptions."""
    with _image(current()) as image:
        return _buf("lint", image, "--config", str(CONFIG))


def breaking(before: FileDescriptorSet) -> list[str]:
    """What would break a client that was built from `before`."""
    with _image(current()) as image, _image(before) as against:
        return _buf("breaking", image, "--against", against, "--config", str(CONFIG))


def current() -> FileDescriptorSet:
    """The contracts as they are, with what they import."""
    return FileDescriptorSet.FromString((GEN / DESCRIPTORS).read_bytes())


def baseline() -> FileDescriptorSet:
    """The contracts that clients were promised."""
    return FileDescriptorSet.FromString(gzip.decompress(BASELINE.read_bytes()))


def without_comments(contracts: FileDescriptorSet) -> FileDescriptorSet:
    """The same, less all source positions and comments."""
    kept = FileDescriptorSet.FromString(contracts.SerializeToString())
    for file in kept.file:
        file.ClearField("source_code_info")
    return kept


def accept(contracts: FileDescriptorSet) -> None:
    """Makes `contracts` the baseline. The file is the same whenever the contracts are."""
    raw = without_comments(contracts).SerializeToString(deterministic=True)
    BASELINE.write_bytes(gzip.compress(raw, compresslevel=9, mtime=0))


@contextmanager
def _image(contracts: FileDescriptorSet) -> Iterator[str]:
    """A file that buf reads as an image, in which only our own files are to be judged."""
    with tempfile.NamedTemporaryFile(suffix=".binpb") as file:
        for each in contracts.file:
            ours = each.package.startswith(OURS)
            raw = each.SerializeToString() + (b"" if ours else _IMPORTED)
            # Each is field 1 of the set; a set is the concatenation of sets.
            file.write(b"\x0a" + _varint(len(raw)) + raw)
        file.flush()
        yield file.name


def _varint(number: int) -> bytes:
    low = number & 0x7F
    return bytes([low]) if number < 0x80 else bytes([low | 0x80]) + _varint(number >> 7)


def _buf(*arguments: str) -> list[str]:
    """The lines that buf prints; none if it found nothing."""
    done = subprocess.run([BUF, *arguments], capture_output=True, text=True, cwd=ROOT, check=False)  # noqa: S603
    lines = (done.stdout + done.stderr).splitlines()
    if done.returncode and not lines:
        lines = [f"buf {arguments[0]} failed with status {done.returncode}"]
    return lines if done.returncode else []
