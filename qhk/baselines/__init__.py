"""Measures of quality that people use without a model: BRISQUE, NIQE and PIQE, as pure functions of an image.

Each takes a grey image ``(H, W)``, values 0 to 255, and returns a number of which less is better.
"""
