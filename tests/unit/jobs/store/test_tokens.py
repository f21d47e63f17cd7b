import pytest

from jobs.store.keys import Heartbeat, LoadError, OwnerToken


@pytest.mark.parametrize(
    ("token", "packed"),
    [
        (OwnerToken("3f2a", "task-1", 42, 7), "3f2a|task-1|42|7"),
        (Heartbeat("fmnist-mlp@1", "3f2a", 42), "fmnist-mlp@1|3f2a|42"),
        (LoadError("fmnist-mlp@1", "3f2a", "no such file: a|b"), "fmnist-mlp@1|3f2a|no such file: a|b"),
    ],
)
def test_a_token_keeps_its_form(token: OwnerToken | Heartbeat | LoadError, packed: str) -> None:
    assert token.pack() == packed
    assert type(token).unpack(packed) == token
    assert type(token).unpack(packed.encode()) == token
