"""Which encoding the bytes of a text are in."""

import codecs
import re
import unicodedata
from collections.abc import Mapping
from typing import BinaryIO

import charset_normalizer

from services.customers.imports.reading.faults import FileEmpty, FileEncoding, FileNotReadable
from services.customers.imports.reading.text import CHUNK, decoder, has_bad

SAMPLE = 64 * 1024
_JUDGED = 8 * 1024  # bytes of lines with more than ASCII that the guess looks at
_BOMS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MULTIBYTE = {
    "cp932": "cp932",
    "shift_jis": "cp932",
    "euc_jp": "euc_jp",
    "gb18030": "gb18030",
    "gbk": "gb18030",
}
_MULTIBYTE |= {"big5": "big5", "big5hkscs": "big5", "euc_kr": "euc_kr", "cp949": "cp949"}
# Letters beyond ASCII that are common in what is written in each: they decide where the bytes fit several.
_COMMON: Mapping[str, str] = {
    "cp1252": "äöüÄÖÜßéèêëàâçñáíóúãõåæøÅÆØîïôûùœìòÉÀÇÁÓÍÚÑ",
    "cp1250": "łąęśćńźżŁŚŻóÓáéíúýčďěňřšťůžČŘŠŽÁÍőűŐŰăâîșțôľĺŕ",
    "cp1251": "абвгдежзийклмнопрстуфхцчшщъыьэюяёіїєґАБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЭЮЯІЇЄ",
    "cp1253": "αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩΆΈΉΊΌΎΏ",
    "cp1254": "ığşİĞŞçöüÇÖÜâî",
    "koi8-r": "абвгдежзийклмнопрстуфхцчшщъыьэюяёАБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЭЮЯ",
}
_MIXED_CASE = re.compile(r"[^\W\d_]*[a-zß-öø-ÿа-яα-ω][A-ZÀ-ÖØ-ÞА-ЯΑ-Ω]")
_FEW_BAD = 1  # so many characters beyond ASCII must be right for each that is wrong, to call a text UTF-8
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x19\x1b-\x1f\x7f]")


def encoding_of(file: BinaryIO) -> str:
    """The name of the encoding. Raises FileEmpty, FileEncoding, or FileNotReadable for what is no text."""
    file.seek(0)
    head = file.read(SAMPLE)
    if not head:
        raise FileEmpty
    found = next((name for bom, name in _BOMS if head.startswith(bom)), "") or _by_zeros(head)
    if not found:
        found = "utf-8" if _is_utf8(file, head) else _guessed(_telling(file))
    sample = decoder(found).decode(head)
    if not sample.strip("\ufeff \t\r\n\x1a\x00"):
        raise FileEmpty
    if len(_CONTROLS.findall(sample)) > max(len(sample) // 50, 4):
        raise FileNotReadable
    return found


def _by_zeros(head: bytes) -> str:
    """UTF-16 without a mark shows in its zeros: of ASCII every other byte is one."""
    sample = head[: len(head) // 2 * 2][:4096]
    if len(sample) < 4:
        return ""
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    if odd > half * 0.3 and even < half * 0.05:
        return "utf-16-le"
    if even > half * 0.3 and odd < half * 0.05:
        return "utf-16-be"
    return ""


def _is_utf8(file: BinaryIO, head: bytes) -> bool:
    """True if the whole file is UTF-8, or but for a few bytes that are plainly mistakes in it."""
    file.seek(0)
    decode = decoder("utf-8").decode
    right = wrong = 0
    while True:
        raw = file.read(CHUNK)
        text = decode(raw, final=not raw)
        if not text.isascii():
            bad = text.count("\udcff") if has_bad(text) else 0
            wrong += bad
            right += len(text) - bad - len(text.encode("ascii", "ignore"))
            if wrong > 1000 and wrong * _FEW_BAD > right:
                return False
        if not raw:
            return wrong * _FEW_BAD <= right or (wrong <= 2 and right == 0 and b"\xff" in head)


def _telling(file: BinaryIO) -> bytes:
    """Lines that hold more than ASCII, from anywhere in the file: the others tell nothing."""
    file.seek(0)
    found, size = [], 0
    while size < _JUDGED and (raw := file.read(CHUNK)):
        if raw.isascii():
            continue
        for line in re.split(rb"[\r\n]+", raw):
            if not line.isascii():
                found.append(line[:500])
                size += len(found[-1])
                if size >= _JUDGED:
                    break
    return b"\n".join(found)


def _guessed(sample: bytes) -> str:
    best = charset_normalizer.from_bytes(
        sample, cp_isolation=sorted({"cp932", "euc_jp", "gb18030", "big5", "euc_kr", "cp949"}), threshold=0.1
    ).best()
    if best is not None and best.encoding in _MULTIBYTE:
        beyond = [c for c in str(best) if ord(c) > 127]
        wide = sum(unicodedata.east_asian_width(c) in "WF" for c in beyond)
        latin = _score(sample, "cp1252")
        if wide >= len(beyond) * 0.8 and (latin is None or latin < 0.8):
            return _MULTIBYTE[best.encoding]
    scores = {name: score for name in _COMMON if (score := _score(sample, name)) is not None}
    if scores and max(scores.values()) > 0.3:
        return max(scores, key=lambda name: scores[name])
    other = charset_normalizer.from_bytes(sample).best()
    if other is not None:
        name = other.encoding.replace("_", "-")
        for known in (other.encoding, name):
            try:
                decoder(known)
            except FileEncoding:
                continue
            return known
    if len(_CONTROLS.findall(sample.decode("latin-1"))) > len(sample) // 50:
        raise FileNotReadable
    if scores:
        return max(scores, key=lambda name: scores[name])
    return "latin-1"


def _score(sample: bytes, encoding: str) -> float | None:
    """How much of the text beyond ASCII is usual in the encoding (at most 1), or None if it does not fit."""
    try:
        text = sample.decode(encoding)
    except UnicodeDecodeError:
        return None
    beyond = [c for c in text if ord(c) > 127]
    if not beyond:
        return 0.0
    usual = sum(c in _COMMON[encoding] for c in beyond)
    odd = len(_MIXED_CASE.findall(text)) if encoding in ("cp1251", "cp1253", "koi8-r") else 0
    return (usual - odd / 2) / len(beyond)
