"""The one way in which files appear: complete, or not at all."""

import errno
import os
import stat

import pytest

from medssl.errors import CheckpointError, DataError, UsageError
from medssl.files import atomic_folder, atomic_write, check_folder_creatable, remove_drafts, write_bytes


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_atomic_write_replaces_content(tmp_path):
    (tmp_path / "a.json").write_text("old")
    with atomic_write(tmp_path / "a.json") as draft:
        draft.write_text("new")
        assert (tmp_path / "a.json").read_text() == "old"
    assert (tmp_path / "a.json").read_text() == "new"
    assert names(tmp_path) == ["a.json"]


def test_atomic_write_keeps_old_file_after_exception(tmp_path):
    (tmp_path / "a.json").write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "a.json") as draft:  # noqa: PT012 (both lines are under test)
        draft.write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "a.json").read_text() == "old"
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize(("umask", "mode", "expected"), [(0o022, 0o666, 0o644), (0o000, 0o600, 0o600)])
def test_atomic_write_sets_mode_from_the_first_byte(tmp_path, umask, mode, expected):
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "key", mode=mode) as draft:
            assert stat.S_IMODE(draft.stat().st_mode) == expected
            draft.write_text("secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == expected


def test_atomic_write_syncs_before_rename(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda file: calls.append("fsync"))
    rename = os.replace
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("rename"), rename(*paths)))
    write_bytes(tmp_path / "a", b"content")
    assert calls == ["fsync", "rename"]


def test_atomic_write_explains_full_disk(tmp_path, monkeypatch):
    def fsync(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(CheckpointError, match=r"a cannot be written: the disk is full .* MB free\)\. Free some space"):
        write_bytes(tmp_path / "a", b"content", error=CheckpointError)
    assert names(tmp_path) == []


def test_atomic_write_explains_library_errors(tmp_path):
    def save():
        with atomic_write(tmp_path / "a", library_errors=(RuntimeError,)):
            raise RuntimeError("unexpected pos 64 vs 0")

    with pytest.raises(DataError, match=r"a cannot be written: unexpected pos 64 vs 0 \(\d+ MB free\)"):
        save()
    with pytest.raises(RuntimeError, match="unexpected"), atomic_write(tmp_path / "a"):
        raise RuntimeError("unexpected")


def test_atomic_folder_appears_complete_or_not_at_all(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="half"), atomic_folder(tmp_path / "out") as draft:  # noqa: PT012 (all under test)
        draft.mkdir()
        (draft / "a").write_text("half")
        raise ValueError("half")
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == []
    with atomic_folder(tmp_path / "out") as draft:
        draft.mkdir()
        (draft / "a").write_text("complete")
    assert names(tmp_path / "out") == ["a"]


def test_remove_drafts_leaves_other_files(tmp_path):
    (tmp_path / ".a.json.0123abcd.tmp").write_text("half")
    (tmp_path / "a.json").write_text("complete")
    remove_drafts(tmp_path)
    assert names(tmp_path) == ["a.json"]


def test_check_folder_creatable_names_the_file_above(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file/out cannot be created, because .*file is a file"):
        check_folder_creatable(tmp_path / "file" / "out")
    check_folder_creatable(tmp_path / "new" / "out")
