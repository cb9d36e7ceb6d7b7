"""People's ratings out and in: what annotators get, with sources blinded, and the table that comes back.

``blinding`` gives each dialogue a code of its own and keeps the key; ``label_studio`` and ``sheet`` write what is to be
filled in and read it back as entries; ``entries`` checks those and puts the names back. Knows nothing of statistics.
"""
