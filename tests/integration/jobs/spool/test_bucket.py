"""Uploads in S3 (moto): objects are whole or absent, and a bucket that cannot be used is named in one line."""

from collections.abc import Iterator

import pytest

from jobs.errors import SettingsError
from jobs.settings import SpoolSettings
from jobs.spool.names import new_upload_name
from jobs.spool.open import open_spool
from jobs.spool.spool import Spool, SpoolAway
from tests.support.s3 import MotoS3, serving_s3

NAME = new_upload_name(bytes(16))


@pytest.fixture
def s3() -> Iterator[MotoS3]:
    with serving_s3() as s3:
        s3.bucket("uploads")
        yield s3


def at(s3: MotoS3, url: str) -> Spool:
    spool = open_spool(SpoolSettings(uploads_url=url, **s3.settings))
    assert spool is not None
    return spool


@pytest.fixture
def spool(s3: MotoS3) -> Spool:
    spool = at(s3, "s3://uploads/a/b")
    spool.check("this store")
    return spool


def test_what_is_written_is_read_until_it_is_deleted(spool: Spool, s3: MotoS3) -> None:
    pointer = spool.write(NAME, b"onetwo")
    spool.commit()
    assert (pointer.name, pointer.size) == (NAME, 6)
    assert spool.read(pointer) == b"onetwo"
    assert list(spool.names()) == [NAME]
    assert s3.keys("uploads") == ["a/b/store", f"a/b/uploads/{NAME}"], "no probe is left"
    assert spool.room_bytes() > 1 << 40
    spool.delete([NAME])
    spool.delete([NAME])
    assert spool.read(pointer) is None
    assert list(spool.names()) == []


@pytest.mark.parametrize("url", ["s3://uploads", "s3://uploads/", "s3://uploads/a b/ü%#+/"])
def test_any_prefix_will_do(s3: MotoS3, url: str) -> None:
    spool = at(s3, url)
    spool.check("this store")
    pointer = spool.write(NAME, b"one")
    assert (spool.read(pointer), list(spool.names())) == (b"one", [NAME])
    spool.delete([NAME])
    assert s3.keys("uploads") == [f"{url.removeprefix('s3://uploads').strip('/')}/store".removeprefix("/")]


def test_only_the_objects_below_the_prefix_are_seen(spool: Spool, s3: MotoS3) -> None:
    spool.write(NAME, b"one")
    s3.put("uploads", {"a/b/uploads-of-others/x": b"", "a/b/x": b"", "x": b"", "a/b/uploads/y/z": b"", "a/bc/x": b""})
    assert sorted(spool.names()) == [NAME, "y/z"]


@pytest.mark.parametrize("damaged", [b"onetw", b"onetwo!", b"ONEtwo", b""])
def test_a_damaged_object_is_lost(spool: Spool, s3: MotoS3, caplog: pytest.LogCaptureFixture, damaged: bytes) -> None:
    pointer = spool.write(NAME, b"onetwo")
    s3.put("uploads", {f"a/b/uploads/{NAME}": damaged})
    assert spool.read(pointer) is None
    assert f"an upload is damaged: {NAME}" in caplog.text


def test_no_object_is_lost_because_s3_or_its_bucket_is_away(spool: Spool, s3: MotoS3) -> None:
    pointer = spool.write(NAME, b"onetwo")
    with s3.away():
        for call in (
            lambda: spool.read(pointer),
            lambda: spool.write(NAME, b"x"),
            lambda: spool.delete([NAME]),
            lambda: list(spool.names()),
            spool.room_bytes,
            lambda: spool.check("this store"),
        ):
            with pytest.raises(SpoolAway):
                call()
    assert spool.read(pointer) == b"onetwo"

    for key in s3.keys("uploads"):
        s3.delete("uploads", key)
    with pytest.raises(SpoolAway, match="lacks its object `store`"):
        spool.read(pointer)
    with pytest.raises(SpoolAway, match="lacks its object `store`"):
        spool.room_bytes()


def test_two_stores_do_not_share_a_prefix(spool: Spool, s3: MotoS3) -> None:
    spool.check("this store")
    with pytest.raises(SettingsError, match="s3://uploads/a/b holds the uploads of another Redis"):
        at(s3, "s3://uploads/a/b").check("another store")
    at(s3, "s3://uploads/a/c").check("another store")


def test_a_prefix_in_use_is_not_marked_anew(s3: MotoS3) -> None:
    with pytest.raises(SettingsError, match="s3://uploads/typo lacks the uploads that Redis counts"):
        at(s3, "s3://uploads/typo").check("this store", is_new=False)
    assert s3.keys("uploads") == []


def test_a_missing_bucket_is_named(s3: MotoS3) -> None:
    with pytest.raises(SettingsError, match="UPLOADS_URL: there is no bucket missing"):
        at(s3, "s3://missing/a").check(None)


@pytest.mark.parametrize(
    ("action", "verb"), [("s3:PutObject", "write"), ("s3:GetObject", "read"), ("s3:DeleteObject", "delete")]
)
def test_a_prefix_without_rights_is_named(s3: MotoS3, action: str, verb: str) -> None:
    s3.deny("uploads", action, "a/b/")
    with pytest.raises(SettingsError, match=f"UPLOADS_URL: S3 does not allow to {verb} objects below s3://uploads/a/b"):
        at(s3, "s3://uploads/a/b").check("this store")
    at(s3, "s3://uploads/c").check("this store")
