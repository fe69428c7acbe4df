"""Where in a TOML file a key stands."""

from pathlib import Path

import pytest

from agentq.core.tomlfile import TomlFile, read_toml

TEXT = """\
# comment with a = sign
plain = 1
"quoted key" = 2
dotted.inner = 3

[table]  # with a comment
key = "x"
list = [
  1,
]
[ table . sub ]
deep = true
[[rows]]
name = "first"
"""


@pytest.fixture
def file(tmp_path: Path) -> TomlFile:
    path = tmp_path / "some.toml"
    path.write_text(TEXT)
    return read_toml(path)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("plain",), 2),
        (("quoted key",), 3),
        (("dotted", "inner"), 4),
        (("table",), 6),
        (("table", "key"), 7),
        (("table", "list", "0"), 8),
        (("table", "sub", "deep"), 12),
        (("table", "absent"), 6),
        (("rows",), 13),
        (("absent",), None),
        ((), None),
    ],
)
def test_a_key_has_a_line(file: TomlFile, keys: tuple[str, ...], line: int | None) -> None:
    assert file.line_of(*keys) == line


def test_an_error_says_where(file: TomlFile) -> None:
    assert str(file.wrong("it is wrong", "table", "key")) == f"{file.path}:7: it is wrong"
