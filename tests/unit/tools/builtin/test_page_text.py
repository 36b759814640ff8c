"""The text of pages, whatever they are made of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parley_server.tools.builtin.fetching.page_text import decoded, text_of_html


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("plain", "plain"),
        ("<h1>A</h1>  <p>b\t c<br>d</p>", "A\nb c\nd"),
        ("a <b>b</b><i>c</i>", "a bc"),
        ("<tr><td>1</td><td>2</td></tr><tr><th>3", "1 2\n3"),
        ("1 < 2 &lt; 3 &#8364; &nope; <", "1 < 2 < 3 \u20ac &nope; <"),
        ("a<script>if (1 < 2) '</p>'</SCRIPT >b", "a\nb"),
        ("a<style>p {}", "a"),
        ("a<!-- <p>x</p> -->b<!doctype html>c<?php x ?>d</ >e", "abcde"),
        ("a<!-- for ever", "a"),
        ("a<p", "a"),
        ("&#99999999999999999999;", "\N{REPLACEMENT CHARACTER}"),
        ("a\n\n \nb", "a\nb"),
    ],
)
def test_text_of_html(source: str, text: str) -> None:
    assert text_of_html(source) == ("", text)


def test_a_title_is_no_text() -> None:
    source = "<html><head><TITLE lang=en> A &amp;\n B </TITLE></head><body>c<svg><title>d</title></svg>"
    assert text_of_html(source) == ("A & B", "c")


@given(st.text(alphabet=st.sampled_from("<>/!-?&#;1 apscrit\n\"'")) | st.text())
def test_any_source_has_a_text(source: str) -> None:
    title, text = text_of_html(source)
    assert len(title) + len(text) <= 2 * len(source)


@pytest.mark.parametrize(
    "part", ["<", "<a ", "<!--", "<!", "</", "<script>", "<title>", "&#1", "&a", "<p>", "<svg></svg", '<a b="', "\n"]
)
def test_a_page_made_to_take_long_is_read_at_once(part: str) -> None:
    assert len(text_of_html(part * (1_000_000 // len(part)))[1]) <= 1_000_000


@pytest.mark.parametrize(
    ("body", "charset", "text"),
    [
        (b"\xe4", "iso-8859-1", "\u00e4"),
        (b"\xc3\xa4", "", "\u00e4"),
        (b"\xc3\xa4", "no-such-charset", "\u00e4"),
        (b"\xe4", "utf-8", "\N{REPLACEMENT CHARACTER}"),
        (b"6161", "hex", "6161"),
        (b"a-b", "punycode", "a-b"),
        (b"\\x41", "unicode_escape", "\\x41"),
        (b"\\u0041", "raw_unicode_escape", "\\u0041"),
        (b"a", "utf\0-8", "a"),
    ],
)
def test_decoding(body: bytes, charset: str, text: str) -> None:
    assert decoded(body, charset) == text


@given(
    st.binary(), st.sampled_from(["utf-16", "utf-7", "idna", "unicode_escape", "rot13", "base64", "mbcs", "undefined"])
)
def test_any_bytes_have_a_text(body: bytes, charset: str) -> None:
    assert len(decoded(body, charset)) <= len(body)
