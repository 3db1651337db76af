"""The committed stubs say what the .proto files say, whichever compiler looks at them."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

NAMES = ("command", "control", "query", "registry", "telemetry")
GENCODE = "6.31.1"


def bare(file: FileDescriptorProto) -> FileDescriptorProto:
    """The same without json_name, which some compilers fill in and others do not."""
    for message in file.message_type:
        clear_json_names(message)
    return file


def clear_json_names(message: DescriptorProto) -> None:
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        clear_json_names(nested)


@pytest.fixture(scope="module")
def compiled(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, FileDescriptorProto]:
    """What the installed compiler makes of the .proto files, by file name."""
    out = tmp_path_factory.mktemp("protos") / "set.bin"
    files = [f"heatpool/v1/{name}.proto" for name in NAMES]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--descriptor_set_out={out}"]
    subprocess.run([*command, *files], cwd=repository / "protos", check=True, timeout=60)
    found = FileDescriptorSet.FromString(out.read_bytes())
    return {Path(file.name).stem: bare(file) for file in found.file}


@pytest.fixture(scope="module")
def committed() -> dict[str, FileDescriptorProto]:
    """What the committed stubs hold."""
    stubs = {name: importlib.import_module(f"heatpool.v1.{name}_pb2") for name in NAMES}
    return {
        name: bare(FileDescriptorProto.FromString(stub.DESCRIPTOR.serialized_pb))
        for name, stub in stubs.items()
    }


def test_every_proto_file_is_known(repository: Path) -> None:
    folder = repository / "protos" / "heatpool" / "v1"
    assert tuple(sorted(path.stem for path in folder.glob("*.proto"))) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_stub_holds_the_proto(
    name: str, compiled: dict[str, FileDescriptorProto], committed: dict[str, FileDescriptorProto]
) -> None:
    assert committed[name] == compiled[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_service_stub_knows_every_call(
    name: str, repository: Path, compiled: dict[str, FileDescriptorProto]
) -> None:
    text = (repository / "protos" / "heatpool" / "v1" / f"{name}_pb2_grpc.py").read_text()
    called = set(re.findall(r"'/(heatpool\.v1\.\w+/\w+)'", text))
    services = compiled[name].service
    assert called == {f"heatpool.v1.{s.name}/{m.name}" for s in services for m in s.method}


@pytest.mark.parametrize("name", NAMES)
def test_the_generator_is_the_one_that_old_runtimes_accept(name: str, repository: Path) -> None:
    folder = repository / "protos" / "heatpool" / "v1"
    assert f"# Protobuf Python Version: {GENCODE}" in (folder / f"{name}_pb2.py").read_text()
    assert (folder / f"{name}_pb2.pyi").exists()
    assert (folder / f"{name}_pb2_grpc.pyi").exists()
