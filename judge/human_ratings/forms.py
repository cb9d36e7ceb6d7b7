"""What ``plan --format`` writes: forms for annotators in which systems are blinded, and the key to them.

The parts of a form are in ``label_studio`` and ``spreadsheet``; here they get the plan's dialogues and their files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from judge.data.dialogues import Problem, read_dialogues
from judge.errors import InputError, listed, plain
from judge.files import as_json_text, replacing, save_text, write_csv
from judge.human_ratings.agreement import is_run
from judge.human_ratings.blinding import Task, blind, key_of, write_key
from judge.human_ratings.label_studio import label_studio_tasks, labelling_config
from judge.human_ratings.spreadsheet import BOM, sheet_of, write_workbook
from judge.prompting.rubric import Outline, Rubric, load_rubric, packaged
from judge.scoring.run_folder import item_ids, load_judgments, read_manifest, read_texts
from judge.types import CHATANIME, Dialogue

if TYPE_CHECKING:
    from calibration import Plan


@dataclass(frozen=True, slots=True)
class Forms:
    """What was written: the files for the annotators, and the key, which is not for them."""

    files: tuple[Path, ...]
    key: Path


def _key(out: Path) -> Path:
    """Where the key of a plan is."""
    return out.with_suffix(".key.json")


def refuse_old_key(out: Path) -> None:
    """InputError where a key would be lost, and with it what its annotators are rating."""
    if _key(out).exists():
        raise InputError(
            f"{_key(out)}: is there already, and ratings by its forms need it; name another --out, or move it away"
        )


def write(
    form: str,
    found: Plan,
    scores: Path,
    out: Path,
    data: Sequence[Path],
    language: str | None,
    rubric: str | Path | None,
    mapping: str = "",
) -> Forms:
    """Write the forms of a plan and their key beside ``out``.

    Args:
        form: label-studio, csv or xlsx.
        found: the plan, of the run or table ``scores``.
        data: where the dialogues are; none for where the run read them.
        language: of the rubric; None for the run's.
        rubric: its name or folder; None for that of the run, or for ChatAnime's of a table.
        mapping: which columns of ``data`` are which fields, as for ``read_dialogues``.

    Raises:
        InputError: the plan is on a metric without a rubric, or a dialogue is not there any more.
    """
    words = _words(scores, language, rubric)
    planned = set(found.expected["metric"])
    if strange := sorted(planned - set(words.metrics)):
        raise InputError(
            f"{scores}: the rubric {words.name} has no metric {plain(strange[0])!r}, only {', '.join(words.metrics)}; "
            "name the rubric that has it: --rubric"
        )
    metrics = [metric for metric in words.metrics if metric in planned]
    dialogues = _dialogues(scores, data, mapping, words.outline, set(found.table["item_id"]))
    rows = found.table[["item_id", "inclusion_probability", "raters"]].itertuples(index=False)
    tasks = blind((dialogues[item], float(chance), int(raters)) for item, chance, raters in rows)
    # The key last: where it is there, the forms are all there too.
    files = _write(form, tasks, words, metrics, out)
    write_key(_key(out), key_of(tasks, words.scheme, metrics))
    return Forms(files, _key(out))


def _words(scores: Path, language: str | None, rubric: str | Path | None) -> Rubric:
    """The rubric that annotators rate by.

    Raises:
        InputError: there is no such rubric, or that of the run is not where it was, or not as it was.
    """
    if rubric is not None or not is_run(scores):
        return load_rubric(language, rubric or CHATANIME)
    manifest = read_manifest(scores)
    judged_by, own = str(manifest.get("rubric", CHATANIME)), str(manifest["identity"]["language"])
    if judged_by not in packaged() and not Path(judged_by).is_dir():
        raise InputError(f"{scores}: its rubric was {judged_by}, which is gone; name one: --rubric NAME or DIR")
    if load_rubric(own, judged_by).digest != manifest["identity"]["rubric"]:
        raise InputError(f"{scores}: its rubric {judged_by} has been changed since; name one: --rubric NAME or DIR")
    return load_rubric(language or own, judged_by)


def _write(form: str, tasks: list[Task], rubric: Rubric, metrics: Sequence[str], out: Path) -> tuple[Path, ...]:
    """Write the files for the annotators, which are returned."""
    if form == "label-studio":
        config, listing = out.with_suffix(".label-studio.xml"), out.with_suffix(".label-studio.json")
        with replacing(config) as file:
            file.write(labelling_config(rubric, metrics, tasks).encode())
        save_text(listing, as_json_text(label_studio_tasks(tasks, rubric)))
        return config, listing
    sheet = sheet_of(tasks, rubric, metrics)
    path = out.with_suffix(".xlsx" if form == "xlsx" else ".sheet.csv")
    with replacing(path) as file:
        if form == "xlsx":
            write_workbook(sheet, rubric, metrics, file)
        else:
            file.write(BOM)
            write_csv(sheet, file)
    return (path,)


def _dialogues(
    scores: Path, data: Sequence[Path], mapping: str, outline: Outline, wanted: set[str]
) -> Mapping[str, Dialogue]:
    """The dialogues of a plan by id, as the run judged them; InputError where one is not there any more.

    Args:
        scores: the run or table that was planned for.
        data: files to read the dialogues from; none for those that the run keeps.
        mapping: which columns of them are which fields, as for ``read_dialogues``.
        outline: of the rubric, which says who is judged.
        wanted: their ids.
    """
    digests: dict[str, str] = {}
    if is_run(scores):
        judgments = load_judgments(scores)
        digests = dict(zip(item_ids(judgments), judgments["content_digest"], strict=True))
    elif not data:
        raise InputError(f"{scores}: a table has no texts to rate; name the dialogues' files: --data")
    if data:
        there, why, where = {}, None, ", ".join(map(str, data[:3]))
        problems = []
        role, character = outline.judged_role, outline.character
        for one in read_dialogues(data, mapping, judged_role=role, default_character=character):
            if isinstance(one, Problem):
                problems.append(one.message)
            elif one.dialogue.id in wanted:
                there[one.dialogue.id] = one.dialogue
        if problems:
            raise InputError(listed(problems))
    else:
        there, why = read_texts(scores, {item: digests[item] for item in wanted})
        where = str(scores)
    for name in sorted(wanted):
        if name not in there:
            reason = f" ({why})" if why else ""
            raise InputError(f"dialogue {plain(name)} is not in {where}{reason}; name the files that have it: --data")
        if digests and digests[name] != there[name].content_digest:
            raise InputError(
                f"dialogue {plain(name)} is not in {where} as it was judged; name the files that were scored: --data"
            )
    return there
