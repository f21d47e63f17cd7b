import pytest

from jobs.urls import S3Url, is_web_url, s3_url


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a.png",
        "https://example.com:8443/a%20b.png?X-Sig=a%2Fb#c",
        "HTTPS://EXAMPLE.COM",
        "http://[2606:4700::1]/",
        "https://exämple.de/ü.png",
        "http://10.0.0.1/",  # addresses are checked when the URL is fetched
    ],
)
def test_web_urls(url: str) -> None:
    assert is_web_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/a.png",
        "//example.com/a.png",
        "ftp://example.com/a.png",
        "file:///etc/passwd",
        "gopher://example.com/",
        "data:image/png;base64,AAAA",
        "http:///a.png",
        "http:a.png",
        "http://user:secret@example.com/",
        "http://@example.com/",
        "http://example.com:0/",
        "http://example.com:99999/",
        "http://example.com:x/",
        "http://exa mple.com/",
        "http://example.com/a b",
        "http://example.com/\r\nHost: x",
        "http://example.com\\@evil.com/",
        "http://[::1/",
        "http://example.com/" + "a" * 2048,
    ],
)
def test_texts_that_are_not_web_urls(url: str) -> None:
    assert not is_web_url(url)


def test_an_s3_url_has_a_bucket_and_a_key_as_it_is() -> None:
    assert s3_url("s3://photos/a b/100%#?.png") == S3Url("photos", "a b/100%#?.png")


def test_a_bucket_or_a_key_that_ends_with_a_slash_is_a_prefix() -> None:
    places = [s3_url(url) for url in ("s3://photos", "s3://photos/", "s3://photos/a/", "s3://photos/a")]
    assert [place.is_prefix for place in places if place] == [True, True, True, False]


@pytest.mark.parametrize(
    "url",
    [
        "s3:/photos/a",
        "s3://",
        "s3://ab",
        "s3://a..b/c",
        "s3://Photos/a",
        "s3://key:secret@photos/a",
        "s3://photos/a//b",
        "s3://photos//",
        "s3://photos/../a",
        "s3://photos/./a",
        "s3://photos/a\nb",
        "s3://photos/" + "a" * 2048,
    ],
)
def test_texts_that_are_not_s3_urls(url: str) -> None:
    assert s3_url(url) is None
