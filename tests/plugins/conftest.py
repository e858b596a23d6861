import pytest
from installed_plugins import Install, installer


@pytest.fixture
def install(tmp_path, monkeypatch) -> Install:
    """Lays down distributions with plugins for one test."""
    return installer(tmp_path, monkeypatch)
