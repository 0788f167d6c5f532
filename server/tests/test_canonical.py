"""The bytes are JavaScript's own: judged by a real Node, one process for the whole run."""

import json
import shutil
import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxpria_server.webhooks.canonical import dumps

pytestmark = pytest.mark.unit

ROUND_TRIP = """
const lines = require('readline').createInterface({input: process.stdin, crlfDelay: Infinity});
lines.on('line', line => process.stdout.write(JSON.stringify(JSON.parse(JSON.parse(line))) + '\\n'));
"""


class Node:
    """JSON.stringify(JSON.parse(text)), in Node. The text travels as an ASCII JSON string, a line each."""

    def __init__(self) -> None:
        program = shutil.which("node")
        assert program, "node is a test dependency (apt-get install nodejs)"
        self.process = subprocess.Popen([program, "-e", ROUND_TRIP], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def round_trip(self, text: str) -> bytes:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(text).encode() + b"\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().removesuffix(b"\n")

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(10)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.close()


strings = st.text(st.characters() | st.sampled_from('\u2028\u2029\ud800\udbff\udc00\udfff\x00\x7f\x1f"\\/'))
integers = st.integers() | st.integers(2**53 - 2, 2**53 + 4) | st.integers(10**20, 10**23)
doubles = st.floats(allow_nan=False, allow_infinity=False)
keys = (
    strings
    | st.integers(0, 2**33).map(str)
    | st.sampled_from(["01", "-1", "4294967294", "4294967295", "__proto__", "1e3"])
)
values = st.recursive(
    st.none() | st.booleans() | integers | doubles | strings,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=12,
)


@given(values)
@settings(max_examples=250, deadline=None)
def test_node_gives_the_same_bytes_back(node, value):
    assert node.round_trip(dumps(value).decode()) == dumps(value)


@given(values)
@settings(max_examples=250, deadline=None)
def test_it_means_what_plain_json_means_to_node(node, value):
    assert node.round_trip(json.dumps(value)) == dumps(value)


@given(doubles)
@settings(max_examples=600, deadline=None)
def test_every_double(node, number):
    assert node.round_trip(repr(number)) == dumps(number)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e21, "1e+21"),
        (10**21, "1e+21"),
        (123456789012345680000, "123456789012345680000"),
        (2**53 + 1, "9007199254740992"),
        (-0.0, "0"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (127.0, "127"),
        (10**400, "null"),
        ({"b": 1, "10": 2, "9": 3, "a": 4}, '{"9":3,"10":2,"b":1,"a":4}'),
        ("\ud83d\ude00 \ud83d \u2028", '"😀 \\ud83d \u2028"'),
        ({"\ud83d\ude00": 1, "x": 2, "😀": 3}, '{"😀":3,"x":2}'),
    ],
)
def test_known_cases(node, value, text):
    assert dumps(value) == text.encode()
    assert node.round_trip(text) == text.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_json_has_not(value):
    with pytest.raises(ValueError, match="not JSON"):
        dumps([value])


@pytest.mark.parametrize("value", [{1: "a"}, {"a": {2}}, b"bytes"])
def test_what_is_not_json_at_all(value):
    with pytest.raises(TypeError):
        dumps(value)
