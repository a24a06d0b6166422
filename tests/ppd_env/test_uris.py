"""URIs."""

import pytest

from ppd_env.errors import ConfigError
from ppd_env.uris import parse_uri


@pytest.mark.parametrize(
    ("text", "scheme", "path", "query"),
    [
        ("mini", "mini", "", {}),
        ("sam:facebook/sam-vit-base", "sam", "facebook/sam-vit-base", {}),
        ("shapes://train?count=5&seed=0", "shapes", "train", {"count": "5", "seed": "0"}),
        ("folder:///data/a+b?images=c+d&pattern={stem}_mask", "folder", "/data/a+b", None),
    ],
)
def test_parts(text, scheme, path, query):
    uri = parse_uri(text)
    assert (uri.text, uri.scheme, uri.path) == (text, scheme, path)
    assert dict(uri.query) == ({"images": "c+d", "pattern": "{stem}_mask"} if query is None else query)


@pytest.mark.parametrize("text", ["", "  ", None, "shapes://train?count"])
def test_what_is_no_uri_is_refused(text):
    with pytest.raises(ConfigError, match=r"URI|key=value"):
        parse_uri(text)


def test_keys_and_integers_are_checked():
    uri = parse_uri("shapes://train?count=many")
    with pytest.raises(ConfigError, match=r"unknown key 'count'; known keys: seed"):
        uri.require_keys(["seed"])
    with pytest.raises(ConfigError, match="count must be an integer, got 'many'"):
        uri.integer("count", 3)
    assert uri.integer("seed", 7) == 7
