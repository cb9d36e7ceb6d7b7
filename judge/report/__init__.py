"""The report of a run: one HTML file that opens offline. ``write_report`` makes it.

``reading`` takes the run in, ``entries`` chooses and describes its dialogues, ``figures``, ``tables``,
``people`` and ``checks`` make plain data of what is shown, ``page`` puts all of it into the template of ``assets``.
"""

from judge.report.page import DIALOGUES, REPORT, write_report
from judge.report.tables import People

__all__ = ["DIALOGUES", "REPORT", "People", "write_report"]
