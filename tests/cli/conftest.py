import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "plugins"))
from installed_plugins import Install, installer


@pytest.fixture
def install(tmp_path, monkeypatch) -> Install:
    """Lays down distributions with plugins for one test."""
    return installer(tmp_path, monkeypatch)
