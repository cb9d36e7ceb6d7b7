"""The report of a run: one HTML file that opens offline. ``write_report`` makes it.

``load_run`` reads the run and chooses its dialogues, ``charts`` and ``tables`` make plain data of what is shown,
``texts`` has the words in both languages, and ``page`` puts all of it into the template of ``assets``.
"""

from judge.report.page import DIALOGUES, REPORT, write_report
from judge.report.tables import People

__all__ = ["DIALOGUES", "REPORT", "People", "write_report"]
