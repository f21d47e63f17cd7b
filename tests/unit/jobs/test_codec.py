from hypothesis import given
from hypothesis import strategies as st

from jobs.codec import pack_outcomes, pack_retained, pack_upload, unpack_outcomes, unpack_retained, unpack_upload
from jobs.item_codes import ITEM_DETAIL, OPTIONAL_FORMATS, FoundFormat, ItemCode
from jobs.records import TOP_K_MAX, ChunkRef, Failure, Prediction, Unfamiliar
from jobs.store.for_workers.leases import FailureCounts

predictions = st.builds(Prediction, st.integers(0, 65_535), st.floats(0, 1, width=32))
classes = st.lists(predictions, min_size=1, max_size=TOP_K_MAX)
failures = st.one_of(
    st.builds(Failure, st.sampled_from(ItemCode)),
    st.builds(
        Failure,
        st.just(ItemCode.UNSUPPORTED_FORMAT),
        st.sampled_from(FoundFormat),
        st.frozensets(st.sampled_from(OPTIONAL_FORMATS)),
    ),
)
outcomes = st.one_of(classes, classes.map(Unfamiliar), failures)


@given(st.lists(st.one_of(st.sampled_from(ItemCode), st.binary(max_size=100)), min_size=1, max_size=64))
def test_packed_uploads_unpack_to_the_same(items: list[bytes | ItemCode]) -> None:
    assert unpack_upload(pack_upload(items), len(items)) == items


@given(st.dictionaries(st.integers(0, 65_535), st.binary(max_size=100), max_size=64))
def test_packed_retained_images_unpack_to_the_same(retained: dict[int, bytes]) -> None:
    assert unpack_retained(pack_retained(retained.items())) == retained


@given(st.text(st.characters(codec="ascii"), min_size=1, max_size=97), st.lists(outcomes, min_size=1, max_size=64))
def test_packed_outcomes_unpack_to_the_same(ref: str, given: list[list[Prediction] | Failure]) -> None:
    unpacked_ref, unpacked = unpack_outcomes(pack_outcomes(ref, given))
    assert (unpacked_ref, unpacked) == (ref, given)
    assert [type(outcome) for outcome in unpacked] == [type(outcome) for outcome in given]


def test_a_failure_of_an_earlier_release_names_the_formats_that_are_always_taken() -> None:
    """It has the format that was found, and not which others were decoded."""
    _, (failure,) = unpack_outcomes(bytes((1,)) + b"m" + bytes((0, 255 - list(FoundFormat).index(FoundFormat.PDF))))
    assert isinstance(failure, Failure)
    assert failure.detail == "The upload's format is not supported here: PDF. Send JPEG, PNG, WebP, GIF or BMP."


@given(st.integers(0, 255))
def test_any_number_of_a_later_release_is_some_failure(number: int) -> None:
    _, (failure, next_item) = unpack_outcomes(bytes((1,)) + b"m" + bytes((0, number)) + bytes((0, 0)))
    assert isinstance(failure, Failure)
    assert failure.detail
    assert next_item == Failure(ItemCode.EMPTY_UPLOAD)


U32 = st.integers(0, 2**32 - 1)


@given(st.binary(min_size=16, max_size=16), U32, st.integers(1, 64), U32, st.tuples(st.booleans(), st.booleans()))
def test_packed_chunk_refs_unpack_to_the_same(
    job_id: bytes, chunk: int, items: int, size: int, flags: tuple[bool, bool]
) -> None:
    chunk_ref = ChunkRef(job_id, chunk, items, size, *flags)
    assert ChunkRef.unpack(chunk_ref.pack()) == chunk_ref
    assert len(chunk_ref.pack()) == 26


def test_every_item_code_has_a_text() -> None:
    assert set(ITEM_DETAIL) == set(ItemCode)


def test_codes_in_the_store_keep_their_numbers() -> None:
    """Stored results refer to a code by its position: a new code must be the last."""
    assert [code.value for code in ItemCode] == [
        "empty_upload",
        "not_an_image",
        "unsupported_format",
        "corrupt_image",
        "too_many_pixels",
        "too_many_frames",
        "item_too_large",
        "upload_lost",
        "worker_crashed",
        "timeout",
        "out_of_memory",
        "worker_lost",
        "model_failed",
        "deadline_exceeded",
        "too_many_scans",
        "link_entry",
        "special_entry",
        "absolute_path",
        "parent_path",
        "nested_archive",
        "encrypted_entry",
        "duplicate_name",
        "compression_bomb",
        "unsupported_compression",
        "corrupt_entry",
        "invalid_url",
        "forbidden_address",
        "fetch_failed",
        "fetch_timeout",
        "fetch_denied",
        "fetch_not_found",
        "too_many_redirects",
        "name_too_long",
        "too_many_parts",
    ]


def test_crashes_of_a_chunk_and_of_an_item_add_up() -> None:
    counts = FailureCounts(crashes=1, items={"3": 2}, code="timeout")
    assert counts.failure_of(3, crash_tries_max=3, lost_leases_max=20) == Failure(ItemCode.TIMEOUT)
    assert counts.failure_of(2, crash_tries_max=3, lost_leases_max=20) is None
