"""The benchmark's judge of duplicates: what it must see, and what it must not take for one."""

from bench.history import Call, History, percentile


def call(event: str, uid: str, begin: float, end: float, *addresses: str, error: str = "") -> Call:
    return Call(
        event=event, uid=uid, container=f"of-{uid}", begin=begin, end=end, cpu=0, addresses=addresses, error=error
    )


def duplicates(*calls: Call) -> list[str]:
    return History(calls, ()).duplicates()


def test_an_address_handed_on_after_its_del_is_no_duplicate() -> None:
    assert not duplicates(
        call("ADD", "a", 0, 1, "10.0.0.1"), call("DEL", "a", 5, 7), call("ADD", "b", 2, 6, "10.0.0.1")
    )


def test_two_that_use_one_address_at_one_moment_are_found() -> None:
    found = duplicates(call("ADD", "a", 0, 1, "10.0.0.1"), call("DEL", "a", 5, 7), call("ADD", "b", 2, 4, "10.0.0.1"))
    assert found == ["10.0.0.1 was used by Pods a and b at one time"]


def test_a_long_tenure_is_held_against_all_that_follow() -> None:
    found = duplicates(
        call("ADD", "a", 0, 1, "10.0.0.1"),
        call("ADD", "b", 2, 3, "10.0.0.1"),
        call("DEL", "b", 4, 5),
        call("ADD", "c", 6, 7, "10.0.0.1"),
    )
    assert len(found) == 2


def test_a_failed_add_uses_nothing() -> None:
    assert not duplicates(call("ADD", "a", 0, 1, "10.0.0.1"), call("ADD", "b", 2, 3, "10.0.0.1", error="code 11"))


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(each) for each in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.9, 0.99, 1.0)] == [50, 90, 99, 100]
    assert percentile([], 0.5) == 0
