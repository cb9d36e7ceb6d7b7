"""Probes: controlled degradations of real dialogues, each aimed at one metric, and a judge's scores of them.

texts/, wording.py              our own lines and names of works, by language
edits.py                        changes of a reply, of which a stronger degradation makes more
surface.py, swaps.py, lines.py  what each degradation does
degradations.py                 all of them by name, with metric and strengths
probing.py                      judging them
"""
