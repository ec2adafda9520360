"""Bytes to arrays and back, each format one module.

A decoder takes bytes and returns points, or raises :class:`kmeans.errors.DataError` with the row, column or byte that
is wrong; it never returns less than what was there. Which media type goes with which decoder stands in one table for
training (``train.files``) and one for requests (``serve.negotiation``).
"""
