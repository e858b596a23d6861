"""The list of encoders that ship is the folder of their files."""

import subprocess
import sys
from pathlib import Path

import pytest

from medssl.encoders import architectures
from medssl.encoders.shipped import shipped_class, shipped_encoders


def test_shipped_encoders_are_the_files_of_the_folder():
    files = {path.stem.replace("_", "-") for path in Path(architectures.__path__[0]).glob("*.py")} - {"--init--"}
    assert set(shipped_encoders()) == files


@pytest.mark.parametrize("name", shipped_encoders())
def test_shipped_class_has_the_name_of_its_file(name):
    assert shipped_class(name).name == name
    assert shipped_class(name).monai_target is not None


def test_shipped_encoders_are_listed_without_torch():
    code = "import sys; from medssl.encoders.shipped import shipped_encoders; shipped_encoders(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "monai", "pydantic"} & set(loaded)
