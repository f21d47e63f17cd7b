import pytest

from jobs.codec import pack_upload
from jobs.item_codes import ItemCode
from jobs.spool.names import Pointer, SpooledFile, new_failed_name, new_upload_name

JOB = bytes(range(16))


def test_a_name_says_whose_file_it_is() -> None:
    assert SpooledFile.named(new_upload_name(JOB)) == SpooledFile(JOB, None)
    assert SpooledFile.named(new_failed_name(JOB, 12)) == SpooledFile(JOB, 12)
    assert new_upload_name(JOB) != new_upload_name(JOB)


@pytest.mark.parametrize("name", ["a.upload", "store", "../" + "0" * 32 + "-" + "0" * 16 + ".upload", ""])
def test_foreign_names_are_no_files_of_the_spool(name: str) -> None:
    assert SpooledFile.named(name) is None
    with pytest.raises(ValueError, match="no file of a spool"):
        Pointer.unpack(f"spool {name} 1 00000001".encode())


def test_a_pointer_is_told_from_packed_images() -> None:
    pointer = Pointer(new_failed_name(JOB, 4_294_967_295), 4_294_967_295, 0xFFFFFFFF)
    assert Pointer.unpack(pointer.pack()) == pointer
    assert pointer.pack().startswith(Pointer.prefix(pointer.name))
    for items in ([b"spool "], [b"spool ", b"x"], [ItemCode.EMPTY_UPLOAD], [b""]):
        assert Pointer.unpack(pack_upload(items)) is None
