import sys

import pytest
from installed_plugins import Install, installer


@pytest.fixture
def install(tmp_path, monkeypatch) -> Install:
    """Lays down distributions with plugins for one test."""
    before = set(sys.modules)
    yield installer(tmp_path, monkeypatch)
    for name in set(sys.modules) - before:
        if name.startswith(("medssl_p", "medssl_broken")):
            del sys.modules[name]
