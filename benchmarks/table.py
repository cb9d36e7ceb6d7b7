"""From what was measured to figures, and from figures to the table in ``docs/performance.md``. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
OURS = ("packed", "forked")
"""What others are compared with: the first of these that took part."""
MEASURED = ("peak_mb", "load_seconds", "prompt_tokens", "unique_tokens", "computed_tokens", "generated_tokens")
"""What is reported as the median over the repeats."""
HEAD = (
    "",
    "judgments timed",
    "judgments/s (min–max)",
    "ours is",
    "unique tokens",
    "computed ÷ unique",
    "peak memory, MB",
    "failed",
)

Figures = dict[str, Any]


def summarise(entry: Mapping[str, Any], repeats: Sequence[Mapping[str, Any]]) -> Figures:
    """A contestant's figures over its repeats: medians, with the extremes of the rate.

    The rate counts judgments that got a score. Where every repeat failed there is only ``error``.
    """
    done = [repeat for repeat in repeats if "error" not in repeat]
    if not done:
        return {**entry, "error": repeats[-1]["error"] if repeats else "did not run", "repeats": list(repeats)}
    rates = [(repeat["judgments"] - repeat["failed"]) / repeat["seconds"] for repeat in done]
    return {
        **entry,
        "judgments": done[0]["judgments"],
        "rate": {"median": median(rates), "min": min(rates), "max": max(rates)},
        "failed": max(repeat["failed"] for repeat in done),
        **{name: _median([repeat.get(name) for repeat in done]) for name in MEASURED},
        # The share of the wall time that was spent inside the model's forward pass, where the contestant reports it.
        "in_model": _median(
            [
                repeat["forward_seconds"] / repeat["seconds"]
                for repeat in done
                if repeat.get("forward_seconds") is not None
            ]
        ),
        "repeats": list(repeats),
    }


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def ratios(contestants: Sequence[Figures]) -> dict[str, float]:
    """By key: how many times as fast as each contestant ours is, by medians; none where a rate is 0 or missing."""
    rates = {figures["key"]: figures["rate"]["median"] for figures in contestants if "rate" in figures}
    ours = next((rates[key] for key in OURS if key in rates), None)
    return {key: ours / rate for key, rate in rates.items() if rate and ours}


def markdown(results: Mapping[str, Any]) -> str:
    """Everything between the markers: for each model where and on what it was measured, its table, its remarks."""
    return "\n\n".join(f"### {name}\n\n{_of_model(found)}" for name, found in results.items())


def _of_model(found: Mapping[str, Any]) -> str:
    if "error" in found:
        return f"Not measured: {found['error']}"
    machine, model, contestants = found["machine"], found["model"], found["contestants"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(found["versions"].items()))
    where = (
        f"{found['date']}: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['system']}, Python {machine['python']}; {versions}."
    )
    weights = "random" if model["is_random"] else "real"
    what = f"{model['parameters'] / 1e6:.1f} million {weights} weights; {found['data']}, nine metrics each."
    ratio = ratios(contestants)
    rows = [_row(figures, ratio.get(figures["key"])) for figures in contestants]
    remarks = [f"- {figures['title']}: {_remark(figures)}" for figures in contestants]
    rule = "|".join(["", "---", *["--:"] * (len(HEAD) - 1), ""])
    settings = _vllm_settings(found["vllm"])
    return "\n".join([where, f"{what}{settings}", "", _line(HEAD), rule, *rows, "", *remarks])


def inserted(page: str, text: str) -> str:
    """The page with the text between its markers, which are added at its end where there are none."""
    if BEGIN not in page or END not in page:
        page = f"{page.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _vllm_settings(vllm: Mapping[str, Any]) -> str:
    """vLLM's settings with their rates, where it took part."""
    if not vllm["chosen"]:
        return ""
    done = [one for one in vllm["tried"] if "error" not in one]
    rates = [f"{_setting(one)}: {_rate(one['judgments'] / one['seconds'])}/s" for one in done]
    tried = f" ({'; '.join(rates)})" if rates else ""
    return f" vLLM with {_setting(vllm['chosen'])}, the fastest of those tried{tried}."


def _setting(setting: Mapping[str, Any]) -> str:
    size = setting["block_size"]
    return f"{setting['dtype']} and blocks of {f'{size} tokens' if size else 'its default size'}"


def _row(figures: Figures, ratio: float | None) -> str:
    """A contestant's row; ``ratio`` is how many times as fast packed is."""
    if "error" in figures:
        return _line([figures["title"], "", "no score", *[""] * (len(HEAD) - 3)])
    rate, computed, unique = figures["rate"], figures["computed_tokens"], figures["unique_tokens"]
    cells = [
        figures["title"],
        str(figures["judgments"]),
        f"{_rate(rate['median'])} ({_rate(rate['min'])}–{_rate(rate['max'])})",
        f"{ratio:.1f} ×" if ratio else "",
        _whole(unique),
        f"{computed / unique:.2f}" if computed is not None and unique else "",
        _whole(figures["peak_mb"]),
        str(figures["failed"]),
    ]
    return _line(cells)


def _remark(figures: Figures) -> str:
    parts = [figures["remark"]]
    if "error" in figures:
        parts.append(f"**No score**: {figures['error']}")
    if figures.get("in_model"):
        parts.append(f"{figures['in_model']:.0%} of the time is inside the model's forward pass.")
    if figures.get("difference") is not None:
        parts.append(f"Scores differ from (a) by at most {figures['difference']:.1g}.")
    return " ".join(parts)


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"
