import uuid

from hypothesis import given
from hypothesis import strategies as st

from jobs.ids import belongs_to, from_text, new_id, to_text


def test_an_id_is_a_uuid_of_version_7_that_sorts_by_time() -> None:
    ids = [new_id("public", b"secret") for _ in range(1000)]
    for job_id in ids:
        parsed = uuid.UUID(bytes=job_id)
        assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert [i[:6] for i in ids] == sorted(i[:6] for i in ids)
    assert len(set(ids)) == 1000


def test_an_id_proves_its_owner() -> None:
    job_id = new_id("alice", b"secret")
    assert belongs_to(job_id, "alice", b"secret")
    assert not belongs_to(job_id, "bob", b"secret")
    assert not belongs_to(job_id, "alice", b"another secret")
    assert not belongs_to(job_id[:-1] + bytes((job_id[-1] ^ 1,)), "alice", b"secret")


def test_text_and_bytes_agree() -> None:
    job_id = new_id("public", b"secret")
    assert to_text(job_id) == str(uuid.UUID(bytes=job_id))
    assert from_text(to_text(job_id)) == job_id


@given(st.text())
def test_any_other_text_is_refused_as_an_id(text: str) -> None:
    assert from_text(text) is None


def test_ids_are_written_one_way_but_for_capitals() -> None:
    text = to_text(new_id("public", b"secret"))
    assert from_text(text.upper()) == from_text(text)
    assert from_text(text.replace("-", "")) is None
    assert from_text(text + "\n") is None
    assert from_text(str(uuid.uuid4())) is None
