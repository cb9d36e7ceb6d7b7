"""``train``: a judge of one's own, trained on human ratings.

Parses, calls ``judge.training`` and prints.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from judge.cli.common import (
    MAP_HELP,
    Annotations,
    AnswerForm,
    Characters,
    Data,
    Json,
    Judge,
    Language,
    Layout,
    MapRatings,
    Repeats,
    RubricName,
    Sources,
    as_one_json,
    names,
    refuse_unwritable_folder,
)
from judge.training.options import TrainOptions
from judge.types import CHATANIME, Options

if TYPE_CHECKING:
    from judge.training.train import Trained

DEFAULTS = TrainOptions()


def train(
    annotations: Annotations,
    out: Annotated[Path, typer.Option(help="The model folder to write, which is not there yet.")],
    data: Data = None,
    mapping: Annotated[str, typer.Option("--map-data", help=f"Of DATA: {MAP_HELP}")] = "",
    columns: MapRatings = None,
    average_repeats: Repeats = False,
    judge: Judge = "auto",
    rubric: RubricName = CHATANIME,
    language: Language = None,
    layout: Layout = "auto",
    answer_form: AnswerForm = "auto",
    sources: Sources = "",
    characters: Characters = "",
    method: Annotated[
        str, typer.Option(help="lora: adapters, merged at the end; full: all weights, for small models.")
    ] = DEFAULTS.method,
    epochs: Annotated[int, typer.Option(help="How often each dialogue is learned from at most.")] = DEFAULTS.epochs,
    rate: Annotated[
        float | None, typer.Option(help="The highest learning rate; by default 2e-4 (lora) or 2e-5 (full).")
    ] = None,
    rank: Annotated[int, typer.Option(help="Of the adapters of lora.")] = DEFAULTS.rank,
    batch_tokens: Annotated[int, typer.Option(help="Tokens of dialogues a step.")] = DEFAULTS.batch_tokens,
    mass_weight: Annotated[
        float, typer.Option(help="Weight of the term that keeps probability on the levels.")
    ] = DEFAULTS.mass_weight,
    severity: Annotated[
        bool, typer.Option("--severity", help="Take each annotator's severity out of what is learned.")
    ] = DEFAULTS.severity,
    held_out: Annotated[
        float, typer.Option(help="Share of scenarios, and of characters, that are held out.")
    ] = DEFAULTS.held_out,
    left_out_system: Annotated[
        str | None, typer.Option(help="The system (source) that is left out, or none; by default one of 4 or more.")
    ] = DEFAULTS.left_out_system,
    patience: Annotated[
        int, typer.Option(help="Stop after so many epochs without a better validation loss.")
    ] = DEFAULTS.patience,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = DEFAULTS.save_every,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Write what lora learned beside its base, not merged into it.")
    ] = DEFAULTS.adapter,
    seed: Annotated[int, typer.Option(help="Random seed of split, order and adapters.")] = DEFAULTS.seed,
    as_json: Json = False,
) -> int:
    """Train a judge on human ratings into a model folder; the same command again goes on where it stopped.

    What base and trained judge reach on scenarios and characters that were held out is printed at the end.
    """
    from judge.cli.console import terminal_progress

    how = TrainOptions(
        method=method,
        epochs=epochs,
        rate=rate,
        rank=rank,
        batch_tokens=batch_tokens,
        mass_weight=mass_weight,
        severity=severity,
        held_out=held_out,
        left_out_system=left_out_system,
        patience=patience,
        save_every=save_every,
        adapter=adapter,
        seed=seed,
    )
    options = Options(
        judge=judge,
        rubric=rubric,
        language=language,
        layout=layout,
        answer_form=answer_form,
        sources=names(sources),
        characters=names(characters),
        mapping=mapping,
    )
    refuse_unwritable_folder(out.parent)
    with terminal_progress() as progress:  # before the imports, which take their time
        from judge.training.train import train as train_judge

        trained = train_judge(
            data or [],
            annotations,
            out,
            options,
            how,
            progress,
            columns=columns,
            average_repeats=average_repeats,
        )
    if as_json:
        figures = [asdict(figure) for figure in trained.figures]
        print(as_one_json({"folder": str(out), "base": trained.base, "losses": trained.losses, "figures": figures}))
    else:
        show_trained(trained)
    return 0


def show_trained(trained: Trained) -> None:
    """Print what base and trained judge reach on what was held out, and where the trained one is."""
    from judge.cli.console import console, line, plain_table
    from judge.training.tables import tables_of

    screen = console()
    screen.print(line(f"base: {trained.base}; gains with 95% intervals over scenarios, where there are enough"))
    for table in tables_of(trained.figures, trained.record["split"]["left_out_system"]):
        screen.print(plain_table(table.title, table.heads, table.rows))
    losses = trained.losses
    screen.print(
        line(
            f"loss on all that was held out: base {losses['base']:.3f}, trained {losses['trained']:.3f}, "
            f"always the mean of what was learned from {losses['constant']:.3f}"
        )
    )
    if losses["trained"] >= losses["base"]:
        screen.print(
            line("- Training did not lower the loss on held-out dialogues: the base judge is as good a choice.")
        )
    screen.print(line(f"the judge: --judge {trained.folder}; how it came about: training.json and README.md in it"))
