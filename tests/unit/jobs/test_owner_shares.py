import random

from jobs.owner_shares import OWNER_OF_ALL, OwnerShares


def take_all(shares: OwnerShares, owner: str) -> int:
    taken = 0
    while shares.has_room(owner):
        shares.add(owner)
        taken += 1
    return taken


def test_no_owner_has_more_than_half_of_what_the_others_leave() -> None:
    shares = OwnerShares(64)
    assert [take_all(shares, owner) for owner in "abcdefgh"] == [32, 16, 8, 4, 2, 1, 1, 0]
    assert shares.total == 64
    shares.remove("a", 32)
    assert [take_all(shares, owner) for owner in "hb"] == [16, 0]


def test_a_server_without_keys_has_one_owner_who_may_have_all() -> None:
    assert take_all(OwnerShares(64), OWNER_OF_ALL) == 64


def test_an_owner_may_have_one_thing_that_is_larger_than_his_share() -> None:
    shares = OwnerShares(100)
    assert shares.has_room("a", 100)
    shares.add("a", 60)
    assert not shares.has_room("a", 1)
    assert shares.has_room("b", 40)
    assert not shares.has_room("b", 41)


def test_what_is_removed_is_free_again() -> None:
    shares, held, source = OwnerShares(1000), list[tuple[str, int]](), random.Random(1)
    for _ in range(10_000):
        owner, amount = source.choice("abc"), source.randint(1, 40)
        if shares.has_room(owner, amount):
            shares.add(owner, amount)
            held.append((owner, amount))
        elif held:
            shares.remove(*held.pop(source.randrange(len(held))))
        assert shares.total == sum(amount for _, amount in held) <= 1000
    for owner, amount in held:
        shares.remove(owner, amount)
    assert shares.total == 0
    assert take_all(shares, "a") == 500
