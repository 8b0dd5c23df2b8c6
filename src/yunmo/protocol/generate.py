"""Generates the protocol's types from its specification files: ``python -m yunmo.protocol.generate``.

For developers: it needs grpcio-tools and datamodel-code-generator, which are no dependencies of Yunmo itself.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PROTO, OPENAPI = HERE / "oip.proto", HERE / "oip.yaml"
GENERATED = ("oip_pb2.py", "oip_pb2.pyi", "oip_types.py")


def generate(folder: Path) -> None:
    """Write the generated files into a folder outside of the project.

    Raises:
        subprocess.CalledProcessError: a generator refuses a specification file.
    """
    _run("grpc_tools.protoc", f"-I{HERE}", f"--python_out={folder}", f"--pyi_out={folder}", PROTO.name)
    _run(
        "datamodel_code_generator",
        f"--input={OPENAPI}",
        "--input-file-type=openapi",
        f"--output={folder / 'oip_types.py'}",
        "--output-model-type=msgspec.Struct",
        "--target-python-version=3.11",
        "--use-union-operator",
        "--use-standard-collections",
        "--use-schema-description",
        "--enum-field-as-literal=all",
        "--disable-timestamp",
        "--formatters=builtin",
    )


def _run(module: str, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=HERE, check=True)


if __name__ == "__main__":
    # Not here at once: the generator would take settings of the project around its output.
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        for name in GENERATED:
            shutil.copyfile(Path(folder) / name, HERE / name)
