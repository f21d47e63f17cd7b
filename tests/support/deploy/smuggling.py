"""Requests whose end two parsers may see at different places, with another request in their body."""

from tests.support.deploy.edge import KEY
from tests.support.pictures import samples

_BAG = samples()["0018-bag.png"]
HIDDEN = (
    f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nAuthorization: Bearer {KEY}\r\n"
    f"Content-Length: {len(_BAG)}\r\n\r\n"
).encode() + _BAG
LAST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
CHUNK = b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
LENGTH = b"Content-Length: %d\r\n" % len(HIDDEN)
# The headers and the body of the outer request.
SHAPES = {
    "chunked and a length of nothing": (b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", CHUNK),
    "a length of nothing after chunked": (b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", CHUNK),
    "a length, and an end of chunks first": (LENGTH + b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n" + HIDDEN),
    "two lengths": (LENGTH + b"Content-Length: 0\r\n", HIDDEN),
    "two lengths in a list": (b"Content-Length: 0, %d\r\n" % len(HIDDEN), HIDDEN),
    "a signed length": (b"Content-Length: +%d\r\n" % len(HIDDEN), HIDDEN),
    "a length with a blank before the colon": (b"Content-Length : %d\r\n" % len(HIDDEN), HIDDEN),
    "a length in a folded line": (b"X: y\r\n Content-Length: 0\r\n" + LENGTH, HIDDEN),
    "a folded length": (b"Content-Length:\r\n %d\r\n" % len(HIDDEN), HIDDEN),
    "chunked, then another coding": (b"Transfer-Encoding: chunked, identity\r\n", CHUNK),
    "chunked twice": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", CHUNK),
    "chunked with a tab": (b"Transfer-Encoding:\tchunked\r\nContent-Length: 0\r\n", CHUNK),
    "chunked by another name": (b"Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n", CHUNK),
    "a chunk extension": (b"Transfer-Encoding: chunked\r\n", CHUNK.replace(b"\r\n", b";a=b\r\n", 1)),
    "a chunk extension with a line feed": (b"Transfer-Encoding: chunked\r\n", b"2;\nxx\r\n0\r\n\r\n" + HIDDEN),
    "a chunk size that overflows": (b"Transfer-Encoding: chunked\r\n", b"1%015x0\r\n" % 0 + HIDDEN),
    "line feeds alone": (LENGTH.replace(b"\r\n", b"\n"), HIDDEN),
    "a carriage return alone": (b"X: y\rContent-Length: 0\r\n" + LENGTH, HIDDEN),
    "a trailer with a length": (
        b"Transfer-Encoding: chunked\r\nTrailer: X\r\n",
        CHUNK[:-2] + b"Content-Length: 9\r\n\r\n",
    ),
    "a body of a GET": (LENGTH, HIDDEN),
}
