"""Writes the Unicode tables of the tokenizer: character classes for its splitters, and normalization data.

Neither is taken from a Unicode file but asked of the `tokenizers` package, code point by code point, because the
tokenizer promises to be equal to that package: its regex engine, its Digits splitter, its added tokens and its
normalizers each follow a Unicode version of their own.

    python core/tools/generate_unicode_tables.py     # overwrites the committed tables
"""

import pathlib
import unicodedata

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

SOURCES = pathlib.Path(__file__).resolve().parents[1] / "src"
CHUNK = 4096  # code points probed per call
MARK = "@@"  # an added token to probe with
HANGUL_SYLLABLES = range(0xAC00, 0xD7A4)  # composed and decomposed by arithmetic


def code_points():
    """All code points that UTF-8 can carry: surrogates are left out."""
    return [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]


def matches_of_pattern(pattern):
    """Set of the code points that `pattern`, a one-character class, matches."""
    splitter = pre_tokenizers.Split(Regex(pattern), "removed")
    matched = set()
    points = code_points()
    for start in range(0, len(points), CHUNK):
        chunk = points[start : start + CHUNK]
        kept = set()
        for _, (begin, end) in splitter.pre_tokenize_str("".join(map(chr, chunk))):
            kept.update(chunk[begin:end])
        matched.update(set(chunk) - kept)
    return matched


def matches_of_digits():
    """Set of the code points that the Digits splitter isolates."""
    splitter = pre_tokenizers.Digits(individual_digits=True)
    matched = set()
    points = code_points()
    for start in range(0, len(points), CHUNK):
        chunk = points[start : start + CHUNK]
        # Every code point stands between two letters, so a piece of one character at an odd index was isolated.
        text = "x" + "".join(chr(c) + "x" for c in chunk)
        for _, (begin, end) in splitter.pre_tokenize_str(text):
            if end - begin == 1 and begin % 2 == 1:
                matched.add(chunk[begin // 2])
    return matched


def matches_of_added_token(text_of, is_match, **flags):
    """Set of the code points for which an added token is found in `text_of(character)` as `is_match` says.

    `text_of` must give four characters that no token joins with its neighbours; `is_match` gets the length of the
    token found there, 0 if there is none.
    """
    prober = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    prober.add_tokens([AddedToken(MARK, normalized=False, **flags)])
    token = prober.token_to_id(MARK)
    matched = set()
    points = code_points()
    for start in range(0, len(points), CHUNK):
        chunk = points[start : start + CHUNK]
        encoding = prober.encode("".join(text_of(chr(c)) for c in chunk))
        found = {
            begin // 4: end - begin
            for id_, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if id_ == token
        }
        matched.update(c for i, c in enumerate(chunk) if is_match(found.get(i, 0)))
    return matched


def ranges(points):
    """Sorted inclusive ranges that cover `points`."""
    found = []
    for c in sorted(points):
        if found and found[-1][1] == c - 1:
            found[-1][1] = c
        else:
            found.append([c, c])
    return found


def table(name, comment, points):
    lines = [f"// {comment}", f"constexpr CodePointRange {name}[] = {{"]
    line = "   "
    for first, last in ranges(points):
        entry = f" {{0x{first:X}, 0x{last:X}}},"
        if len(line) + len(entry) > 120:
            lines.append(line)
            line = "   "
        line += entry
    lines += [line, "};", ""]
    return "\n".join(lines)


def generate_classes():
    """Text of unicode_tables.inc."""
    letters = matches_of_pattern(r"\p{L}")
    marks = matches_of_pattern(r"\p{M}")
    numbers = matches_of_pattern(r"\p{N}")
    spaces = matches_of_pattern(r"\s")
    uppers = matches_of_pattern(r"[\p{Lu}\p{Lt}]")
    lowers = matches_of_pattern(r"\p{Ll}")
    if len(letters | marks | numbers | spaces) != len(letters) + len(marks) + len(numbers) + len(spaces):
        raise SystemExit("letters, marks, numbers and white space overlap; the splitters assume that they do not")
    if uppers & lowers or not uppers | lowers <= letters:
        raise SystemExit("upper and lower case are not two kinds of letters; the splitters assume that they are")
    words = matches_of_added_token(lambda c: MARK + c + " ", lambda length: length == 0, single_word=True)
    if matches_of_added_token(lambda c: MARK + c + "x", lambda length: length == 3, rstrip=True) != spaces:
        raise SystemExit("added tokens strip other characters than the regex engine's white space")
    return "\n".join(
        [
            *header(),
            table("kLetters", r"\p{L} of its regex engine", letters),
            table("kMarks", r"\p{M} of its regex engine", marks),
            table("kNumbers", r"\p{N} of its regex engine", numbers),
            table("kSpaces", r"\s of its regex engine and of its added tokens", spaces),
            table("kUppers", r"[\p{Lu}\p{Lt}] of its regex engine", uppers),
            table("kLowers", r"\p{Ll} of its regex engine", lowers),
            table("kDigits", "characters that its Digits splitter isolates", matches_of_digits()),
            table("kWords", "characters that an added token with single_word must not touch", words),
            "// clang-format on",
            "",
        ]
    )


def header():
    return [
        "// Generated by core/tools/generate_unicode_tables.py. Do not edit.",
        f"// Made with tokenizers {tokenizers.__version__}.",
        "// clang-format off",
    ]


def normalize_each(normalizer, texts):
    """Normal forms of texts without line breaks: a line break never combines with its neighbours."""
    return normalizer.normalize_str("\n".join(texts)).split("\n")


def combining_classes(decomposed):
    """Canonical combining classes other than 0, by code point, found by how NFD orders two characters after an `a`.

    Only the order matters, so Python's names for the classes serve; who belongs to which is asked of `tokenizers`.
    """
    nfd = normalizers.NFD()
    points = [c for c, text in decomposed.items() if text == chr(c)]  # others never stand in decomposed text

    def swapped(pairs):
        texts = ["a" + chr(x) + chr(y) for x, y in pairs]
        return [new != old for new, old in zip(normalize_each(nfd, texts), texts, strict=True)]

    lowest, highest = 0x0334, 0x0345  # of classes 1 and 240
    above_lowest = swapped([(c, lowest) for c in points])
    below_highest = swapped([(highest, c) for c in points])
    candidates = [c for c, a, b in zip(points, above_lowest, below_highest, strict=True) if a or b]
    representatives = {}
    for c in candidates:
        representatives.setdefault(unicodedata.combining(chr(c)), c)
    if 0 in representatives:
        raise SystemExit(f"U+{representatives[0]:04X} combines for tokenizers but not for this Python")
    classes = {}
    for name, representative in representatives.items():
        above = swapped([(c, representative) for c in candidates])
        below = swapped([(representative, c) for c in candidates])
        for c, a, b in zip(candidates, above, below, strict=True):
            if not a and not b and classes.setdefault(c, name) != name:
                raise SystemExit(f"U+{c:04X} has two combining classes")
    if set(classes) != set(candidates):
        raise SystemExit("a character belongs to none of the combining classes that Python knows")
    return classes


def literal(text):
    return 'U"' + "".join(f"\\x{ord(c):X}" for c in text) + '"'


def wrapped(entries):
    lines = []
    line = "   "
    for entry in entries:
        if len(line) + len(entry) + 2 > 120:
            lines.append(line)
            line = "   "
        line += f" {entry},"
    return [*lines, line]


def generate_normalization():
    """Text of normalization_tables.inc."""
    points = [c for c in code_points() if c != 0x0A and c not in HANGUL_SYLLABLES]
    characters = [chr(c) for c in points]
    nfc = normalizers.NFC()
    canonical = dict(zip(points, normalize_each(normalizers.NFD(), characters), strict=True))
    compatible = dict(zip(points, normalize_each(normalizers.NFKD(), characters), strict=True))
    composed = dict(zip(points, normalize_each(nfc, characters), strict=True))
    pairs = []
    for c in points:
        parts = canonical[c]
        if parts == chr(c) or composed[c] != chr(c):
            continue
        first = nfc.normalize_str(parts[:-1])
        if len(first) != 1 or nfc.normalize_str(first + parts[-1]) != chr(c):
            raise SystemExit(f"U+{c:04X} is not composed of a character and the last one of its decomposition")
        pairs.append((ord(first), ord(parts[-1]), c))
    groups = []
    for c, name in sorted(combining_classes(canonical).items()):
        if groups and groups[-1][1] == c - 1 and groups[-1][2] == name:
            groups[-1][1] = c
        else:
            groups.append([c, c, name])
    return "\n".join(
        [
            *header(),
            "// NFD of a code point, without Hangul syllables",
            "constexpr Decomposition kCanonicalDecompositions[] = {",
            *wrapped(f"{{0x{c:X}, {literal(text)}}}" for c, text in canonical.items() if text != chr(c)),
            "};",
            "",
            "// NFKD where it differs from NFD",
            "constexpr Decomposition kCompatibilityDecompositions[] = {",
            *wrapped(f"{{0x{c:X}, {literal(text)}}}" for c, text in compatible.items() if text != canonical[c]),
            "};",
            "",
            "// first, second, composed",
            "constexpr Composition kCompositions[] = {",
            *wrapped(f"{{0x{a:X}, 0x{b:X}, 0x{c:X}}}" for a, b, c in sorted(pairs)),
            "};",
            "",
            "// canonical combining classes other than 0",
            "constexpr CombiningRange kCombiningRanges[] = {",
            *wrapped(f"{{0x{a:X}, 0x{b:X}, {name}}}" for a, b, name in groups),
            "};",
            "// clang-format on",
            "",
        ]
    )


TABLES = {"unicode_tables.inc": generate_classes, "normalization_tables.inc": generate_normalization}

if __name__ == "__main__":
    for name, generate in TABLES.items():
        (SOURCES / name).write_text(generate(), encoding="utf-8")
