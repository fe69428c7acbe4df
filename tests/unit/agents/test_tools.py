from pathlib import Path

import pytest

from workers.agents import tools
from workers.agents.tools import Refused, evaluate, read_under, search_under

CORPUS = Path(__file__).parents[2] / "fixtures" / "corpus"


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", "7"),
        ("-(2 ** 3) // 3", "-3"),
        ("2^10", "1024"),
        ("1 / 8", "0.125"),
        ("sqrt(2) * sqrt(2)", "2"),
        ("max(3, 4) % 3", "1"),
        ("round(pi, 2)", "3.14"),
        ("0.1 + 0.2", "0.3"),
        ("10 ** 200 * 3", "3" + "0" * 200),
    ],
)
def test_arithmetic_is_done(expression: str, value: str) -> None:
    assert evaluate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "9 ** 9 ** 9",
        "10 ** 299 * 10 ** 299",
        "9 ** -9 ** 99",
        "(-8) ** 0.5",
        "1 / 0",
        "__import__('os')",
        "(1).__class__",
        "'a' * 10**9",
        "[1] * 10",
        "x",
        "max()",
        "round(1, ndigits=1)",
        "1 +",
        "",
        "True + 1",
        "1 if 2 else 3",
        "(" * 300 + "1" + ")" * 300,
        "+".join(["1"] * 500),
        "exp(10 ** 10)",
        "1" * 10_000,
        "1 << 100000",
        "\x00",
    ],
)
def test_what_is_no_bounded_arithmetic_is_refused(expression: str) -> None:
    with pytest.raises(Refused):
        evaluate(expression)


def test_a_file_is_read_under_the_root_alone(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.txt").write_text("words")
    (root / "b.html").write_text("<p>One</p><p>Two</p>")
    (root / "large.txt").write_text("word " * 50_000)
    (tmp_path / "secret.txt").write_text("secret")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    assert read_under(root, "a.txt") == "words"
    assert read_under(root, "b.html").split() == ["One", "Two"]
    large = read_under(root, "large.txt")
    assert len(large) < tools.READ_BYTES + 100
    assert large.endswith("[cut here: the file has 250,000 bytes]")
    for path in ("../secret.txt", str(tmp_path / "secret.txt"), "link.txt", "gone.txt", ".", "", "a\x00b"):
        with pytest.raises(Refused):
            read_under(root, path)


def test_search_gives_places() -> None:
    found = search_under(CORPUS, "Where is the state of an agent kept?")
    assert "state/" in found.split("\n")[0]
    assert search_under(CORPUS, "zebra") == "Nothing was found in the folder."
    with pytest.raises(Refused):
        search_under(CORPUS, "what is it?")


def test_tools_are_described_for_the_model() -> None:
    described = {tool["function"]["name"]: tool["function"] for tool in tools.described()}
    assert set(described) == {"read_file", "search_folder", "calculate"}
    for function in described.values():
        assert function["description"]
        assert list(function["parameters"]["properties"]) == function["parameters"]["required"]


def test_a_tool_refuses_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTQ_TOOLS_ROOT", str(CORPUS))
    assert tools.read_file("travel/careers.txt").startswith("How to write a resume")
    assert tools.read_file("../documents.py").startswith("Refused: ")
    assert tools.calculate("9**9**9").startswith("Refused: ")
    assert "roses" in tools.search_folder("How are roses fed?").lower()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("nothing", "{}"),
        ("calculate", "{"),
        ("calculate", "[]"),
        ("calculate", '{"x": 1}'),
        ("read_file", '{"path": []}'),
    ],
)
def test_wrong_calls_are_refused(name: str, arguments: str) -> None:
    with pytest.raises(Refused):
        tools.argument_of(name, arguments)


def test_an_argument_is_found() -> None:
    assert tools.argument_of("calculate", '{"expression": "1+1", "more": 2}') == "1+1"
    assert tools.argument_of("calculate", '{"expression": 7}') == "7"
