"""Generates gen/ from protos/: messages, stubs with types, and one descriptor set with comments."""

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib import resources
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

PROTOS = Path(__file__).parent
ROOT = PROTOS.parent
GEN = ROOT / "gen"
SITE_PACKAGES = Path(sysconfig.get_path("purelib"))
WELL_KNOWN = Path(str(resources.files("grpc_tools") / "_proto"))
DESCRIPTORS = "descriptors.binpb"


def _protovalidate_descriptor() -> FileDescriptorProto:
    """The descriptor of buf/validate/validate.proto, whose source no wheel carries."""
    from protovalidate._gen.buf.validate import validate_pb

    return FileDescriptorProto.FromString(validate_pb._DESC.proto.to_binary())


def _with_imports(file: FileDescriptorProto) -> FileDescriptorSet:
    from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2

    wanted = (descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2)
    files = [FileDescriptorProto.FromString(m.DESCRIPTOR.serialized_pb) for m in wanted]
    return FileDescriptorSet(file=[*files, file])


def _protoc(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=True)  # noqa: S603


def build(out: Path = GEN) -> None:
    """Writes the generated tree to `out`, replacing what is there."""
    fresh = Path(tempfile.mkdtemp(prefix=out.name + ".", dir=out.parent))
    try:
        _generate(fresh)
        _replace(out, fresh)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _generate(fresh: Path) -> None:
    validate = fresh / "validate.binpb"
    validate.write_bytes(_with_imports(_protovalidate_descriptor()).SerializeToString())
    files = sorted(str(p.relative_to(PROTOS)) for p in PROTOS.glob("regulars/**/*.proto"))
    bin_dir = Path(sys.executable).parent
    _protoc(
        f"-I{PROTOS}",
        f"-I{SITE_PACKAGES}",
        f"-I{WELL_KNOWN}",
        f"--descriptor_set_in={validate}",
        f"--plugin=protoc-gen-mypy={bin_dir / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={bin_dir / 'protoc-gen-mypy_grpc'}",
        f"--python_out={fresh}",
        f"--grpc_python_out={fresh}",
        f"--mypy_out=quiet:{fresh}",
        f"--mypy_grpc_out=quiet,only_async:{fresh}",
        "--include_imports",
        "--include_source_info",
        f"--descriptor_set_out={fresh / DESCRIPTORS}",
        *files,
        "buf/validate/validate.proto",
    )
    validate.unlink()
    for package in {p.parent for p in fresh.rglob("*.py")}:
        (package / "py.typed").touch()


def _replace(out: Path, fresh: Path) -> None:
    fresh.chmod(0o755)
    old = Path(tempfile.mkdtemp(prefix=out.name + ".", dir=out.parent))
    if out.exists():
        out.rename(old / "gen")
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)


if __name__ == "__main__":
    build(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else GEN)
