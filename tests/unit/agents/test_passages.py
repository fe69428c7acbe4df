import pytest

from workers.agents.retrieval.models import Kind
from workers.agents.retrieval.passages import blocks, sentences, worth
from workers.agents.retrieval.reading import html_text


def read(text: str, kind: Kind) -> list[tuple[int, str, str]]:
    """(line, heading, sentence) of all sentences."""
    return [
        (text.count("\n", 0, sentence.start) + 1, block.heading, sentence.text)
        for block in blocks(text, kind)
        for sentence in sentences(text, block)
    ]


def test_markdown_knows_headings_lists_tables_and_code() -> None:
    text = (
        "---\ntitle: The guide\n---\n"
        "# Top\n\nA first sentence that\nruns over two lines. A second one stands beside it.\n\n"
        "## Inner ##\n\n- An item of a list is a paragraph too.\n"
        "  It may go on below its mark.\n1. So is a numbered one here.\n\n"
        "```python\nno_sentence = 'in code is ever quoted by us.'\n```\n\n"
        "    nor is one in an indented block.\n\n"
        "| Key | Meaning of the key |\n|---|---|\n| a | A cell may hold a whole sentence. |\n\n"
        "Set text\n========\n\nBelow the underline comes a last sentence.\n"
    )
    assert read(text, "markdown") == [
        (6, "The guide > Top", "A first sentence that runs over two lines."),
        (7, "The guide > Top", "A second one stands beside it."),
        (11, "Top > Inner", "An item of a list is a paragraph too."),
        (12, "Top > Inner", "It may go on below its mark."),
        (13, "Top > Inner", "So is a numbered one here."),
        (23, "Top > Inner", "A cell may hold a whole sentence."),
        (28, "The guide > Set text", "Below the underline comes a last sentence."),
    ]


def test_a_block_quote_is_quoted_line_by_line() -> None:
    text = "> One whole sentence stands here.\n> - Another one is an item here.\n"
    assert [line for line, _, _ in read(text, "markdown")] == [1, 2]
    assert all(">" not in sentence for _, _, sentence in read(text, "markdown"))


def test_rst_knows_directives_literal_blocks_and_underlines() -> None:
    text = (
        "Title\n=====\n\nAn opening sentence stands here.\n\n"
        ".. note::\n\n   A note holds text to be quoted.\n\n"
        ".. code-block:: python\n\n   print('this is no sentence at all.')\n\n"
        "Part\n----\n\nAn example of the thing follows::\n\n    this is a literal block of text.\n\n"
        "Then the text goes on again.\n"
    )
    assert read(text, "rst") == [
        (4, "Title", "An opening sentence stands here."),
        (8, "Title", "A note holds text to be quoted."),
        (17, "Title > Part", "An example of the thing follows::"),
        (21, "Title > Part", "Then the text goes on again."),
    ]


def test_plain_text_takes_short_lines_alone_for_headings() -> None:
    text = "LEASES AND FENCING\n\nTwo workers must never own one agent.\nEach holds a lease of its own.\n"
    assert read(text, "text") == [
        (3, "LEASES AND FENCING", "Two workers must never own one agent."),
        (4, "LEASES AND FENCING", "Each holds a lease of its own."),
    ]


def test_html_keeps_the_lines_of_its_source() -> None:
    source = (
        "<html><head><title>No text\nof ours</title></head>\n<body><h1>The\nheading</h1>\n"
        "<p>A sentence with <b>bold</b> words\n&amp; references &#10; in it.</p><script>var a = 'not this one here.'\n"
        "</script><p\n class='x'>The last sentence of them all.</p>"
    )
    assert read(html_text(source), "html") == [
        (5, "The heading", "A sentence with bold words & references in it."),
        (8, "The heading", "The last sentence of them all."),
    ]


def test_abbreviations_do_not_end_a_sentence() -> None:
    text = "Dr. Smith and others (e.g. Mr. Jones) said so in Fig. 3 of it. The next one is its own sentence."
    assert [sentence for _, _, sentence in read(text, "text")] == [
        "Dr. Smith and others (e.g. Mr. Jones) said so in Fig. 3 of it.",
        "The next one is its own sentence.",
    ]


def test_endless_text_is_cut_into_stretches() -> None:
    text = "word " * 1000
    found = read(text, "text")
    assert len(found) > 10
    assert all(len(sentence.split()) <= 80 for _, _, sentence in found)


def test_line_feeds_that_were_written_out_part_sentences() -> None:
    text = "A heading without a stop here\\nThe sentence that follows it is whole."
    assert [sentence for _, _, sentence in read(text, "text")][-1] == "The sentence that follows it is whole."


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("The state is kept in a log.", "Is the state ever kept in a log?"),
        ("The state is kept in a log.", "The state is kept in a log:"),
        ("The state is kept in a log of steps.", "This is why it is kept in a log."),
        ("The state is kept in a log.", "x = {'state': kept[0]}; log(state);"),
        ("The state is kept in a log.", "| 12.5 | 99 % | 1,024 | 3.14 | 0.001 |"),
    ],
)
def test_plain_statements_are_worth_most(better: str, worse: str) -> None:
    assert worth(better) > worth(worse)


def test_a_link_does_not_lower_a_sentence() -> None:
    assert worth("The state is kept in [a log](https://example.org/a/very/long/address/1) of its own steps.") == 1.0
    assert worth("[One](a) [two](b) [three](c) [four](d) [five](e)") == 0.0
