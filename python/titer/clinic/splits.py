"""What the records of each split are like."""

from __future__ import annotations

from dataclasses import dataclass

from titer.clinic.styles import HELD_OUT_STYLES, STYLES, Style


@dataclass(frozen=True)
class Split:
    """What the records of one split are like.

    Parameters
    ----------
    name : str
        Name of the file, without suffix.
    styles : tuple of Style
        Styles of its notes.
    several_questions : bool
        Whether a record may ask several questions; those that are scored ask one.
    held_out : bool
        Whether half of the records show held-out pairs, and a quarter ask with held-out words.
    directives : bool
        Whether some records contain a directive.
    revised : bool
        Whether the revised guideline gives the answers.
    """

    name: str
    styles: tuple[Style, ...] = STYLES
    several_questions: bool = False
    held_out: bool = False
    directives: bool = False
    revised: bool = False


TRAIN = Split("train", several_questions=True, directives=True)
DEVELOPMENT = Split("development", held_out=True, directives=True)
TEST = Split("test", held_out=True, directives=True)
CALIBRATION = Split("calibration")
HELD_OUT_STYLE = Split("held_out_style", styles=HELD_OUT_STYLES)
REVISED = Split("revised", revised=True)
REVISED_TEST = Split("revised_test", revised=True)
SPLITS = (TRAIN, DEVELOPMENT, TEST, CALIBRATION, HELD_OUT_STYLE, REVISED, REVISED_TEST)
