"""Addresses of files on servers and in containers, and the paths that stand for them."""

from pathlib import Path

import pytest

from medssl.archive.sources.location import Location, container_of, is_on_disk, is_remote, member_path
from medssl.archive.sources.walk import resolve_sources


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/2020/p1/IM0001", "dicomweb+https://host:8042/dicom-web"])
def test_location_is_the_same_from_url_and_path(url):
    location = Location.parse(url)
    assert location.url == url
    assert Location.of(location.path) == location == Location.parse(Path(url))
    assert str(location.path) == url.replace("://", ":/")
    assert location.is_dicomweb == url.startswith("dicomweb")


@pytest.mark.parametrize("path", ["/data/a.nii.gz", "a/b", "C:/data", "s3:", "/s3://bucket/key"])
def test_paths_on_disk_have_no_location(path):
    assert Location.parse(path) is None
    assert not is_remote(Path(path))
    assert is_on_disk(Path(path))


def test_member_path_names_its_container(tmp_path):
    member = member_path(tmp_path / "a.zip", "p1/IM0001")
    assert container_of(member) == tmp_path / "a.zip"
    assert not is_on_disk(member)
    (tmp_path / "a.zip::").mkdir()
    assert container_of(member) is None


def test_sources_may_be_urls(tmp_path):
    assert resolve_sources(["s3://bucket/b", tmp_path, "s3://bucket/b/c"]) == (tmp_path.resolve(), Path("s3:/bucket/b"))
