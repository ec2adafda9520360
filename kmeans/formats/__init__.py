"""Bytes to arrays and back: one module per format, and one list of formats (:mod:`kmeans.formats.registry`).

A decoder returns all points of its input, or raises :class:`kmeans.errors.DataError` with the row, column or byte that
is wrong.
"""
