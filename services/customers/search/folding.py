"""Texts without what people leave out when they type: case, accents, the script of the name."""

import re
import unicodedata

_GREEK = str.maketrans(
    dict(zip("αβγδεζηικλμνξοπρσςτυφω", "avgdeziiklmnxoprsstyfo", strict=True))
    | {"θ": "th", "χ": "ch", "ψ": "ps"}
)
_CYRILLIC = str.maketrans(
    dict(zip("абвгдезийклмнопрстуфыэіїґјћ", "abvgdeziyklmnoprstufyeiigjc", strict=True))
    | {"ё": "e", "ж": "zh", "х": "kh", "ц": "ts", "ч": "ch", "ш": "sh", "щ": "shch", "ъ": "", "ь": ""}
    | {"ю": "yu", "я": "ya", "є": "ye", "ђ": "dj", "љ": "lj", "њ": "nj", "џ": "dz", "ў": "u"}
)
# Latin letters that Unicode does not take apart, and what Arabic writers use for one another.
_OTHERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "ħ": "h", "ŧ": "t"}
    | {"ŋ": "n", "ə": "e", "ى": "ي", "ة": "ه", "ـ": ""}
)
_KATAKANA = {code: code - 0x60 for code in range(0x30A1, 0x30F7)}
_APOSTROPHES = str.maketrans(dict.fromkeys("'`\u00b4\u02b9\u02bb\u02bc\u2018\u2019", ""))
# Marks over Latin, Greek and Cyrillic letters, and the vowel points of Hebrew and Arabic. Others make the letter.
_MARKS = re.compile(
    r"[\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed]"
)
_CJK = r"\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
_PARTS = re.compile(rf"[{_CJK}]+|[^\s{_CJK}]+")
_ASCII_WORD = re.compile("[a-z0-9]+")
_IS_CJK = re.compile(f"[{_CJK}]")


def fold(text: str) -> str:
    """The form in which texts are compared: lower case, no accents, Greek and Cyrillic in Latin letters."""
    if text.isascii():
        return text.lower()
    lower = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", text).casefold())
    latin = lower.replace("ου", "ou").translate(_CYRILLIC)
    apart = _MARKS.sub("", unicodedata.normalize("NFKD", latin))
    whole = unicodedata.normalize("NFC", apart.replace("ου", "ou").translate(_GREEK).translate(_CYRILLIC))
    return whole.translate(_OTHERS).translate(_KATAKANA)


def words(text: str) -> tuple[str, ...]:
    """The words of a text, folded, in their order; a run of Chinese, Japanese or Korean letters is one word."""
    folded = fold(text.translate(_APOSTROPHES))
    if folded.isascii():
        return tuple(_ASCII_WORD.findall(folded))
    plain = "".join(c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in folded)
    return tuple(_PARTS.findall(plain))


def is_cjk(word: str) -> bool:
    """True for words whose letters say as much as a syllable or a word of other scripts."""
    return _IS_CJK.match(word) is not None
