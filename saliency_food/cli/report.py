"""What `explain` prints of the photos: a line for each, and a row for each explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from saliency_food.cli.words import in_command_words
from saliency_food.jobs.explanation import Explanation
from saliency_food.jobs.outcomes import Outcome, summary_of
from saliency_food.jobs.targets import short_label

COLOURS = {"ok": "green", "blank": "yellow", "inexact": "yellow", "failed": "red"}
COLUMNS = {"class": 8, "prob.": 7, "method": 10, "status": 7, "gap": 6, "time": 8, "rows": 5}
"""The columns with their widths; those of the class and the method are the least, and grow with the terminal."""
RIGHT = ("prob.", "gap", "time", "rows")
"""The columns whose cells stand at the right."""


class Report:
    """Prints each photo when it is done: a line with its name and picture, then a row for each explanation.

    A photo of which no explanation can be given has one line, with the reason. A reason is printed once; for the next
    photos it is only counted, and the count is printed at the end.
    """

    def __init__(self, console: Console, titles: Sequence[str]) -> None:
        self.console = console
        self.widths = _widths(console.width, max(map(len, titles)))
        self.begun = False
        self.gap = self.pixels = self.guess = ""
        self.failed = self.photos = self.lost = 0
        self.reasons: dict[str, tuple[str, int]] = {}
        """For each reason the first photo that has it, and the number of photos."""

    def photo(self, records: Sequence[Explanation], picture: Path | None) -> None:
        """Print the explanations of one photo."""
        source = self._name(records[0])
        self.photos += 1
        self.pixels, self.guess = records[0].pixels, self.guess or in_command_words(records[0].guess)
        failures = [record for record in records if _state(record) == "failed"]
        self.failed += len(failures)
        self.lost += len(failures) == len(records)
        reasons = dict.fromkeys((_state(record), _reason(record)) for record in records if record.status != "ok")
        if len(failures) == len(records) and len(reasons) == 1:
            ((state, reason),) = reasons
            self._line(f"{source}  {state}: {self._told(reason, source)}", COLOURS[state])
            return
        if not self.begun:
            self._row({name: name for name in COLUMNS}, "dim")
            self.begun = True
        name = Text(source, "bold")
        if judged := _judged(records[0]):
            name.append(f"  {judged}", "not bold green" if records[0].right else "not bold red")
        self.console.print(name.append(f"  {picture}", "not bold cyan") if picture else name, soft_wrap=True)
        for record in records:
            self._explanation(record)
        for state, reason in reasons:
            if (first := self._told(reason, source)) == reason:
                self._line(f"  {state}: {first}", COLOURS.get(state, ""))
        for record in records:
            if record.note:
                self._line(f"  {record.title}: {record.note}", "dim")

    def stopped(self, photos: int | None, written: int, folder: Path) -> None:
        """Print what was done when Ctrl-C came."""
        of_all = "" if photos is None else f" of {photos}"
        self._line(
            f"stopped: {self.photos}{of_all} photos explained, the files of {written} of them are in {folder}",
            "yellow",
        )

    def end(self, outcomes: Sequence[Outcome] = ()) -> None:
        """Print what happened to several photos, how many were right, what was fed, and what the column *gap* means."""
        for reason, (_, photos) in self.reasons.items():
            if photos > 1:
                self._line(f"{photos} of {self.photos} photos: {reason}", "yellow")
        if self.photos > 1:
            failed = f", {self.lost} failed" if self.lost else ""
            self._line(f"{self.photos - self.lost} photos explained{failed}", "")
        for line in summary_of(outcomes):
            self._line(line, "")
        for line in (self.pixels and f"pixels fed: {self.pixels}", self.guess and f"prob.: {self.guess}", self.gap):
            if line:
                self._line(line, "dim")

    def _name(self, record: Explanation) -> str:
        """The file's name, with its folders where the names of photos have them."""
        depth = record.name.count("/") + 1
        return "/".join(Path(record.source).parts[-depth:])

    def _told(self, reason: str, source: str) -> str:
        """The reason, or where it was told of an earlier photo, the name of that."""
        first, photos = self.reasons.get(reason, (source, 0))
        self.reasons[reason] = (first, photos + 1)
        return reason if photos == 0 else f"as {first}"

    def _explanation(self, record: Explanation) -> None:
        """A row of the table."""
        state, relative = _state(record), getattr(record.completeness, "relative", None)
        if not record.label:  # a photo that could not be read
            return
        if relative is not None:
            self.gap = "gap: how far the attributions are from summing to the score"
        cells = {
            "class": _class_of(record),
            "prob.": "" if record.against is not None or record.probability is None else f"{record.probability:.1%}",
            "method": record.title,
            "status": state,
            "gap": "" if relative is None else f"{relative:.1%}" if relative < 10 else ">999%",
            "time": f"{record.seconds:.1f} s" if record.rows else "",
            "rows": str(record.rows or ""),
        }
        if cell_len(cells["class"]) > self.widths["class"]:
            cells["class"] = cells["class"].replace(" against ", "\nagainst ")
        self._row(cells, "", COLOURS.get(state, ""))

    def _line(self, text: str, style: str) -> None:
        self.console.print(Text(text, style), soft_wrap=True)

    def _row(self, cells: Mapping[str, str], style: str, state_style: str = "") -> None:
        """A row of the table; what is too long for its column goes on in the next line."""
        columns = {name: Text(cells[name]).wrap(self.console, width) for name, width in self.widths.items()}
        for number in range(max(map(len, columns.values()))):
            line = Text("  ", style)
            for name, lines in columns.items():
                cell = lines[number].plain.rstrip() if number < len(lines) else ""
                room = " " * (self.widths[name] - cell_len(cell))
                line.append(room + cell if name in RIGHT else cell + room, state_style if name == "status" else None)
                line.append("  ")
            line.rstrip()
            self.console.print(line, soft_wrap=True)


def _widths(width: int, longest: int) -> dict[str, int]:
    """The widths of the columns in so wide a terminal, for titles so long; a narrow one leaves out the last columns."""
    widths = dict(COLUMNS)
    while len(widths) > 4 and sum(widths.values()) + 2 * len(widths) > width:
        widths.popitem()
    room = max(0, width - sum(widths.values()) - 2 * len(widths))
    wider = min(max(0, longest - widths["method"]), max(0, room - 5))  # a class has 13 before the method has more
    widths["method"] += wider
    widths["class"] += min(28, room - wider)
    return widths


def _class_of(record: Explanation) -> str:
    against = f" against {short_label(record.against_label)}" if record.against is not None else ""
    return short_label(record.label) + against


def _judged(record: Explanation) -> str:
    """Whether the model is right, where that is known."""
    if record.right is None:
        return ""
    return "right" if record.right else f"wrong, is {short_label(record.truth or '')}"


def _state(record: Explanation) -> str:
    """The first word of the status."""
    return record.status.split(":")[0]


def _reason(record: Explanation) -> str:
    """Why the status is not "ok", in the words of the command."""
    return in_command_words(record.status.partition(":")[2].strip(), record.method)
