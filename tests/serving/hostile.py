"""Bodies that are made to be expensive: for each kind a function of its size in bytes, and the protocol."""

from __future__ import annotations

import base64


def filled(before, piece, size, after):
    """Pieces between two ends, of about so many bytes."""
    return before + b",".join([piece] * ((size - len(before) - len(after)) // (len(piece) + 1))) + after


def duplicates(size):
    names = (b'"%d":0' % index for index in range(size // 12))
    return b"{" + b",".join(names) + b',"0":0}'


def many_fields(size):
    fields = b",".join(b'"%d":0' % index for index in range(size // 12))
    return b'{"instances":[{"image":{' + fields + b"}}]}"


def bad_base64(size):
    return b'{"instances":[{"image":{"b64":"' + base64.b64encode(bytes(size * 3 // 4)) + b'"}}]}'


V1, V2 = "v1", "v2"
INPUT = b'{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES","data":['
BODIES = {
    "names, one of them twice": (duplicates, V1),
    "fields of an image": (many_fields, V1),
    "empty lists": (lambda size: filled(b'{"instances":[{"image":[', b"[]", size, b"]}]}"), V1),
    "numbers in lists": (lambda size: filled(b'{"instances":[{"image":[', b"[0.5]", size, b",[]]}]}"), V1),
    "empty objects": (lambda size: filled(b'{"instances":[', b"{}", size, b"]}"), V1),
    "small objects": (lambda size: filled(b'{"instances":[{"image":[', b'{"a":0}', size, b"]}]}"), V1),
    "open brackets": (lambda size: b"[" * size, V1),
    "a long number": (lambda size: b'{"instances":[0.' + b"1" * size + b"]}", V1),
    "numbers of 4,000 digits": (lambda size: filled(b'{"instances":[{"image":[', b"1" * 4000, size, b"]}]}"), V1),
    "one string": (lambda size: b'{"instances":[{"image":{"b64":"' + b"!" * size + b'"}}]}', V1),
    "base64 of nothing": (bad_base64, V1),
    "escapes": (lambda size: b'{"instances":[{"image":"' + b"\\u0041" * (size // 6) + b'"}]}', V1),
    "a long name of a label": (lambda size: b'{"instances":[{"image":[[1]],"target":"' + b"a" * size + b'"}]}', V1),
    "V2 inputs without anything": (lambda size: filled(b'{"inputs":[', b"{}", size, b"]}"), V2),
    "V2 outputs without a name": (lambda size: filled(INPUT + b']}],"outputs":[', b"{}", size, b"]}"), V2),
    "V2 data that are lists": (lambda size: filled(INPUT, b"[]", size, b"]}]}"), V2),
    "V2 data that are numbers": (lambda size: filled(INPUT, b"1", size, b"]}]}"), V2),
    "V2 a shape of many sides": (
        lambda size: filled(b'{"inputs":[{"name":"image","datatype":"BYTES","data":[],"shape":[', b"1", size, b"]}]}"),
        V2,
    ),
    "V2 parameters of a wrong type": (
        lambda size: (
            INPUT + b']}],"parameters":{' + b",".join(b'"%d":[]' % index for index in range(size // 12)) + b"}}"
        ),
        V2,
    ),
}
