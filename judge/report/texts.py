"""The interface's texts in both languages, from ``assets/zh.yaml`` and ``en.yaml``, and the names of the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

import yaml
from markupsafe import Markup

from judge.report.values import Key
from judge.rubric import LANGUAGES, load_rubric
from judge.types import RESPONSE_DIVERSITY


def load_texts() -> dict[str, dict[str, str]]:
    """By language and key."""
    return {language: {**_interface(language), **_metrics(language)} for language in LANGUAGES}


def asset(name: str) -> str:
    """A file of the page's, as text."""
    return (resources.files("judge.report") / "assets" / name).read_text(encoding="utf-8")


def _interface(language: str) -> dict[str, str]:
    return {str(key): str(text) for key, text in yaml.safe_load(asset(f"{language}.yaml")).items()}


def _metrics(language: str) -> dict[str, str]:
    """What metrics and dimensions are called, as in the rubric."""
    rubric = load_rubric(language)
    titles = {name: metric.title for name, metric in rubric.metrics.items()}
    titles |= {**rubric.texts.dimensions, RESPONSE_DIVERSITY: rubric.response_diversity.title}
    return {f"metric.{name}": title for name, title in titles.items()}


class Speaker:
    """Puts texts into the page in both languages, that of ``language`` being shown until another is chosen."""

    def __init__(self, texts: Mapping[str, Mapping[str, str]], language: str) -> None:
        self.texts, self.language = texts, language

    def say(self, key: str | Key, **facts: Any) -> Markup:
        """A text as an element of its own."""
        return Markup("<span{}>{}</span>").format(self.both(key, **facts), self.plain(key, **facts))

    def both(self, key: str | Key, **facts: Any) -> Markup:
        """Attributes by which the script puts an element's text into the language chosen."""
        return Markup("").join(
            Markup(' data-{}="{}"').format(language, self._fill(language, key, facts)) for language in self.texts
        )

    def named(self, key: str | Key, **facts: Any) -> Markup:
        """The attributes that name an element for who does not see it, in the language chosen."""
        names = (
            Markup(' data-label-{}="{}"').format(language, self._fill(language, key, facts)) for language in self.texts
        )
        return Markup(' aria-label="{}"{}').format(self.plain(key, **facts), Markup("").join(names))

    def plain(self, key: str | Key, **facts: Any) -> str:
        """A text in the language shown first."""
        return self._fill(self.language, key, facts)

    def _fill(self, language: str, key: str | Key, facts: Mapping[str, Any]) -> str:
        name, given = (key.key, {**key.facts, **facts}) if isinstance(key, Key) else (key, facts)
        filled = {fact: self._fact(language, value) for fact, value in given.items()}
        return self.texts[language][name].format(**filled)

    def _fact(self, language: str, value: Any) -> Any:
        return self._fill(language, value, {}) if isinstance(value, Key) else value
