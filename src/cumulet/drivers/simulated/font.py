"""Letters of a simulated guest's screen: 5 pixels wide and 7 high, in cells of 8 by 12. There are capitals only."""

from __future__ import annotations

CELL_WIDTH, CELL_HEIGHT = 8, 12
_LEFT, _TOP = 1, 2
"""Of a letter in its cell."""

_LETTERS = """
A 0E11111F111111 B 1E11111E11111E C 0E11101010110E D 1E11111111111E E 1F10101E10101F F 1F10101E101010 G 0E11101711110F
H 1111111F111111 I 0E04040404040E J 0702020202120C K 11121418141211 L 1010101010101F M 111B1515111111 N 11191513111111
O 0E11111111110E P 1E11111E101010 Q 0E11111115120D R 1E11111E141211 S 0F10100E01011E T 1F040404040404 U 1111111111110E
V 11111111110A04 W 11111115151B11 X 11110A040A1111 Y 11110A04040404 Z 1F01020408101F 0 0E11131519110E 1 040C040404040E
2 0E11010608101F 3 1F02040201110E 4 02060A121F0202 5 1F101E0101110E 6 0608101E11110E 7 1F010204080808 8 0E11110E11110E
9 0E11110F01020C : 000C0C000C0C00 . 00000000000C0C - 0000001F000000 _ 0000000000001F / 01020204080810 ( 02040808080402
) 08040202020408 ' 04040800000000 , 000000000C0408 ? 0E110102040004
"""
"""Each with its seven rows, from the top, as hexadecimal numbers; the left pixel is the highest bit of five."""

_words = _LETTERS.split()
ROWS: dict[str, bytes] = {letter: bytes.fromhex(rows) for letter, rows in zip(_words[::2], _words[1::2], strict=True)}
ROWS[" "] = bytes(7)


def drawn(line: str, columns: int) -> list[list[bool]]:
    """A line of text as rows of pixels, cut or filled to so many columns. What there is no letter for is a ``?``."""
    letters = [ROWS.get(letter, ROWS["?"]) for letter in line.upper().ljust(columns)[:columns]]
    rows = []
    for row in range(CELL_HEIGHT):
        inside = _TOP <= row < _TOP + 7
        pixels: list[bool] = []
        for letter in letters:
            bits = letter[row - _TOP] << (CELL_WIDTH - 5 - _LEFT) if inside else 0
            pixels += [bool(bits >> place & 1) for place in reversed(range(CELL_WIDTH))]
        rows.append(pixels)
    return rows
