"""Decides which versions of which models answer while the service runs.

Workers share only two folders. The artifacts folder holds the existing versions. The state folder
holds the operator's choices (choices.py), each worker's report (reports.py) and the mapped copies
(copies.py). Each worker checks both folders and follows them by itself (rollout.py).
"""
