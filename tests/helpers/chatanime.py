"""What the packaged rubric of ChatAnime rates, by the names that tests call it."""

from judge.prompting.rubric import languages, load_rubric

SCHEME = load_rubric().scheme
METRICS, ALL_METRICS, LEVELS = SCHEME.metrics, SCHEME.all_metrics, SCHEME.all_levels
DIMENSIONS, COMPOSITES = SCHEME.dimensions, SCHEME.composites
RESPONSE_DIVERSITY = str(SCHEME.set_metric)
LANGUAGES = languages()
