"""What is taken out of a text before the encoder reads it, and what is not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.classifier.text import normalise


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Halden &amp; Sons", "Halden & Sons"),
        ("profit &gt; loss", "profit > loss"),
        ("Shares fall https://t.co/aB3dE", "Shares fall"),
        ("Shares fall t.co/aB3dE now", "Shares fall now"),
        ("see www.halden.example/news, please", "see please"),
        ("HTTP://HALDEN.EXAMPLE/x falls", "falls"),
        ("$HLDN falls 3.5% #banks @desk", "$HLDN falls 3.5% #banks @desk"),
        ("  two\n\tlines\u00a0here ", "two lines here"),
        ("cost.co/branch opens", "cost.co/branch opens"),
        ("", ""),
        ("half \ud83d a pair", "half ? a pair"),
        ("Not SHOUTED; naïve", "Not SHOUTED; naïve"),
    ],
)
def test_links_entities_and_white_space_go_and_the_rest_stays(written, read):
    assert normalise(written) == read


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=())))
def test_whatever_comes_in_can_be_written_as_utf_8_and_holds_no_double_space(text):
    clean = normalise(text)
    clean.encode("utf-8")
    assert clean == " ".join(clean.split())
