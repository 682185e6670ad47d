"""The dictionary that applications see, and its JSON."""

import json
import math
import random
from datetime import timedelta
from typing import Any

import pytest

from edge_session import Session, SessionError, Stored
from edge_session import _json as js
from edge_session._contract import Edit, Ready, State, Visit
from edge_session.session import InvalidChange


def session(text: str = "{}", expires: int | None = None) -> Session:
    ready = Ready(Visit("an-id", State(0, None)), "loaded", None)
    return Session(ready, Stored(text, expires))


def edits(session: Session) -> Any:
    return session._change().data


def test_what_is_only_read_is_no_change() -> None:
    one = session('{"a":1.0,"b":{"c":[1e2,"\\u00e9"]},"d":"\\ud800","e":1e999}')
    assert edits(one) == ("nothing", None)
    assert dict(one) == {"a": 1, "b": {"c": [100, "é"]}, "d": "\ud800", "e": math.inf}
    assert (len(one), "b" in one, "x" in one, list(one)) == (4, True, False, ["a", "b", "d", "e"])
    assert one.get("x", 7) == 7
    assert edits(one) == ("nothing", None)


def test_the_cookie_is_no_data() -> None:
    one = session('{"cookie":{"path":"/"},"a":[1]}')
    assert dict(one) == {"a": [1]}
    assert edits(one) == ("nothing", None)
    one["a"].append(2)
    assert edits(one) == ("edits", [Edit("a", "[1,2]")])


def test_the_engines_text_takes_precedence_over_the_loaded_one() -> None:
    ready = Ready(Visit("an-id", State(0, None)), "unknown", '{"a":1}')
    one = Session(ready, Stored('{"b":2}', 1_700_000_000_000))
    assert dict(one) == {"a": 1}
    assert one.expires is None  # it is not stored


def test_changes_inside_values_are_seen() -> None:
    one = session('{"a":{"b":{"c":1}},"list":[1],"same":{"x":[]}}')
    one["a"]["b"]["c"] = 2
    one["list"].append("é")
    assert edits(one) == ("edits", [Edit("a", '{"b":{"c":2}}'), Edit("list", '[1,"é"]')])


def test_a_value_that_is_set_again_is_no_change() -> None:
    one = session('{"a":1,"b":[true,"é"],"c":1.5}')
    one.update(a=1, b=[True, "é"], c=1.5)
    assert edits(one) == ("nothing", None)
    one["a"] = True  # in Python, it equals 1
    assert edits(one) == ("edits", [Edit("a", "true")])


def test_keys_are_removed() -> None:
    one = session('{"a":1,"b":2,"c":3}')
    del one["a"]
    assert one.pop("b") == 2 and one.pop("x", None) is None
    one["b"] = 2
    one["new"] = 1
    del one["new"]
    with pytest.raises(KeyError):
        del one["x"]
    assert edits(one) == ("edits", [Edit("a", None), Edit("b", None), Edit("b", "2")])


def test_all_keys_are_removed() -> None:
    one = session('{"a":1,"b":2}')
    one.clear()
    assert dict(one) == {}
    one["b"] = 2.0
    assert edits(one) == ("whole", '{"b":2}')


def test_the_edits_make_of_what_is_stored_what_the_application_made_of_it() -> None:
    chance = random.Random(1)
    for _ in range(2000):
        stored = {key: chance.choice([1, "x", [2]]) for key in chance.sample("abcdef", 4)}
        one = session(json.dumps(stored))
        for _ in range(chance.randrange(6)):
            key = chance.choice("abcdefg")
            match chance.randrange(4):
                case 0:
                    one.pop(key, None)
                case 1:
                    one[key] = chance.choice([1, "x", [2], [3]])
                case 2 if one:
                    one.popitem()
                case 3 if isinstance(inside := one.get(key), list):
                    inside.append(0)
        kind, changes = edits(one)
        made = dict(stored)
        for key, value in changes or ():
            made.pop(key) if value is None else made.update({key: json.loads(value)})
        assert list(made.items()) == list(one.items())
        assert (kind == "nothing") == (list(stored.items()) == list(made.items()))


def test_only_the_last_action_counts() -> None:
    one = session('{"a":1}')
    one.set_max_age(60)
    one.renew()
    assert one._change() == ("renew", ("nothing", None), [Edit("maxAge", "60000")])
    one.regenerate()
    one.renew()
    one.set_max_age(timedelta(minutes=2))
    one["b"] = 1
    assert one._change() == ("regenerate", ("whole", '{"b":1}'), [Edit("maxAge", "120000")])
    one.unset()
    assert one._change().action == "destroy"


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, 8.65e12])
def test_a_lifetime_has_to_be_one(seconds: float) -> None:
    with pytest.raises(ValueError, match="not a lifetime"):
        session().set_max_age(seconds)


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, {"x": [-math.inf]}, {1, 2}, b"bytes", object(), {(1,): 2}],
)
def test_what_json_does_not_have_is_refused(value: Any) -> None:
    one = session()
    one["key"] = value
    with pytest.raises(InvalidChange, match="`key`"):
        one._change()


def test_values_without_end_are_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    for value in (endless, deep):
        one = session()
        one["key"] = value
        with pytest.raises(InvalidChange):
            one._change()


def test_keys_are_texts() -> None:
    with pytest.raises(TypeError, match="not int"):
        session()[1] = 1  # type: ignore[index]
    one = session()
    one["\ud800"] = 1
    with pytest.raises(InvalidChange, match="lone surrogate"):
        one._change()


def test_lone_surrogates_survive() -> None:
    one = session('{"a":["\\ud800x"],"\\udfff":1}')
    one["a"].append("\udc00\U0001f600")
    assert edits(one) == ("edits", [Edit("a", '["\\ud800x","\\udc00\U0001f600"]')])
    one.clear()
    one["\udfff"] = "\ud800"
    assert edits(one) == ("whole", '{"\\udfff":"\\ud800"}')


def test_integers_of_any_length_can_be_read() -> None:
    one = session(f'{{"a":{"9" * 5000},"b":[1]}}')
    assert one["b"] == [1]
    assert edits(one) == ("nothing", None)


def test_a_closed_session_cannot_be_changed() -> None:
    one = session('{"a":1}')
    one._close("too late")
    assert one["a"] == 1
    for act in (
        lambda: one.update(a=2),
        lambda: one.pop("a"),
        one.clear,
        one.renew,
        one.regenerate,
        one.destroy,
        one.unset,
        lambda: one.set_max_age(None),
    ):
        with pytest.raises(SessionError, match="too late"):
            act()


def test_when_it_expires() -> None:
    assert session().expires is None
    expires = session(expires=1_700_000_000_123).expires
    assert expires and expires.isoformat() == "2023-11-14T22:13:20.123000+00:00"
    latest = session(expires=8_640_000_000_000_000).expires
    assert latest and latest.year == 9999


def test_it_shows_no_secrets() -> None:
    one = session('{"a":"hidden"}')
    assert repr(one) == "<Session loaded>"


def test_numbers_are_written_as_javascript_does() -> None:
    # The output of JSON.stringify in Node 20.
    expected = {
        0.0: "0",
        1.0: "1",
        -1.5: "-1.5",
        100.0: "100",
        1e20: "100000000000000000000",
        1.2345678901234568e20: "123456789012345680000",
        1e21: "1e+21",
        1.5e300: "1.5e+300",
        1e-6: "0.000001",
        1.25e-5: "0.0000125",
        1e-7: "1e-7",
        -1.5e-7: "-1.5e-7",
        5e-324: "5e-324",
        0.1 + 0.2: "0.30000000000000004",
        2.0**53: "9007199254740992",
    }
    for value, text in expected.items():
        assert js.write(value) == text
        assert float(json.loads(text)) == value
    assert js.write(-0.0) == "0"


def test_texts_that_look_like_numbers_stay() -> None:
    value = {"1.0": ["2.0", '"3.0\\', 4.0, "é5.50"]}
    assert js.write(value) == '{"1.0":["2.0","\\"3.0\\\\",4,"é5.50"]}'


def test_texts_are_escaped_as_javascript_does() -> None:
    text = 'a"\\\n\t\b\f\r\x00\x1f\x7f\u2028é\U0001f600/'
    assert js.write(text) == '"a\\"\\\\\\n\\t\\b\\f\\r\\u0000\\u001f\x7f\u2028é\U0001f600/"'
