"""Which versions of which models answer, while the service runs.

Workers share nothing but two folders. The artifacts folder says what there is. The state folder
holds what an operator has chosen (choices.py), what each worker serves (reports.py) and the copies
that they map (copies.py). Each worker looks at both and follows by itself (rollout.py).
"""
