from gateway.http.docs_text import inline, prose


def test_paragraphs_lists_and_drawings() -> None:
    text = "One\nand\n\n- `a`: first\n- second\n\n    top\n\n      left\n\nLast"
    assert prose(text).split("\n\n") == [
        "<p>One\nand</p>\n<ul>\n<li><code>a</code>: first</li>\n<li>second</li>\n</ul>\n<pre>top",
        "  left</pre>\n<p>Last</p>",
    ]


def test_code_and_bold_words() -> None:
    assert inline("**Keys.** Send `x-api-key`.") == "<strong>Keys.</strong> Send <code>x-api-key</code>."


def test_html_in_a_text_is_text() -> None:
    assert (
        inline('`<b>` & **"<i>"**') == "<code>&lt;b&gt;</code> &amp; <strong>&quot;&lt;i&gt;&quot;</strong>"
    )
    assert "<script>" not in prose("<script>\n\n- <script>\n\n    <script>")


def test_nothing_is_nothing() -> None:
    assert prose("") == ""
