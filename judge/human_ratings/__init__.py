"""Human ratings out and in: what annotators get, with systems blinded, and the table that comes back.

``blinding`` gives each dialogue a code of its own, keeps the key, and checks what comes back against it;
``label_studio`` and ``spreadsheet`` write what is to be filled in and read it back; ``forms`` writes all that a plan
needs. ``agreement`` puts human ratings and a judge's scores side by side, ``calibrated_run`` calibrates a run by them.
Statistics are the work of ``calibration``.
"""
